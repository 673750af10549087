//! A TCP proxy that delays, cuts or silences what passes through it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

const PASS: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;

/// Looks at its mode this often.
const SLICE: Duration = Duration::from_millis(20);

/// Between clients and one server, on a port of its own.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<State>,
    /// Where clients connect to.
    pub port: u16,
}

struct State {
    mode: AtomicU8,
    delay_ms: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// The one in front of the tests' broker.
    pub fn shared(port: u16, server: u16) -> Self {
        static SHARED: OnceLock<Proxy> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(port, server)).clone()
    }

    /// Listens on a port that was chosen before, so that a broker can advertise it.
    pub fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port is free");
        let state = Arc::new(State { mode: AtomicU8::new(PASS), delay_ms: AtomicU64::new(0), open: Mutex::default() });
        let proxy = Self { state: Arc::clone(&state), port };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.mode.load(Ordering::Relaxed) == CUT {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let both = [(&client, &server), (&server, &client)];
                for (from, to) in both {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    state.open.lock().expect("no panic").push(from.try_clone().expect("a handle"));
                    let state = Arc::clone(&state);
                    thread::spawn(move || pump(from, to, &state));
                }
            }
        });
        proxy
    }

    /// Lets everything pass, each piece so much later.
    pub fn pass(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
        self.state.mode.store(PASS, Ordering::Relaxed);
    }

    /// Breaks every connection and takes no new one.
    pub fn cut(&self) {
        self.state.mode.store(CUT, Ordering::Relaxed);
        for stream in self.state.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps connections open, and lets nothing through: whoever waits cannot know.
    pub fn silence(&self) {
        self.state.mode.store(SILENT, Ordering::Relaxed);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    let _ = from.set_read_timeout(Some(SLICE));
    loop {
        while state.mode.load(Ordering::Relaxed) == SILENT {
            thread::sleep(SLICE);
        }
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::Relaxed)));
        // What was read just before silence fell is lost in the silence's middle, not delivered through it.
        while state.mode.load(Ordering::Relaxed) == SILENT {
            thread::sleep(SLICE);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
