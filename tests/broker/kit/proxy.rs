//! A TCP proxy that delays, cuts, drops, holds or throttles data.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

const PASS: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;
const HELD: u8 = 3;

/// The interval at which the proxy checks its mode.
const SLICE: Duration = Duration::from_millis(20);
/// Chunks on their way in one direction of a connection.
const PIECES_MAX: usize = 1_024;
const PIECE_BYTES: usize = 64 * 1024;
/// The same while bandwidth is limited: a few chunks per second.
const LIMITED_PIECE_BYTES: usize = 4 * 1024;

/// A proxy between clients and one server, with a port of its own.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<State>,
    /// The port that clients connect to.
    pub port: u16,
}

#[derive(Default)]
struct State {
    mode: AtomicU8,
    delay_ms: AtomicU64,
    /// Bytes per second that all clients together may send; 0 means no limit.
    bandwidth: AtomicU64,
    /// The time at which the link to the server will have sent all accepted data.
    link_free_at: Mutex<Option<Instant>>,
    next: AtomicU64,
    /// Open connections by number.
    open: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

/// A chunk, and when it was read.
type Piece = (Instant, Vec<u8>);

impl Proxy {
    /// Returns the proxy of the tests' broker.
    pub fn shared(port: u16, server: u16) -> Self {
        static SHARED: OnceLock<Proxy> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(port, server)).clone()
    }

    /// Listens on a given port, so a broker can advertise it.
    pub fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port is free");
        let state = Arc::new(State::default());
        let proxy = Self { state: Arc::clone(&state), port };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.mode() == CUT {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                connect(&client, &server, &state);
            }
        });
        proxy
    }

    /// Delivers all data with a delay. Connections that have lost data end.
    pub fn pass(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
        self.state.mode.store(PASS, Ordering::Relaxed);
    }

    /// Limits the bytes per second that all clients together may send; 0 means no limit.
    pub fn limit(&self, bytes_per_s: u64) {
        self.state.bandwidth.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Closes all connections and accepts no new ones.
    pub fn cut(&self) {
        self.state.mode.store(CUT, Ordering::Relaxed);
        let open = std::mem::take(&mut *self.state.open.lock().expect("no panic"));
        open.into_values().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Keeps connections open and drops all data, which a client cannot notice.
    pub fn silence(&self) {
        self.state.mode.store(SILENT, Ordering::Relaxed);
    }

    /// Keeps connections open and delivers all data when [`Self::pass`] is called, like a network that retransmits.
    pub fn hold(&self) {
        self.state.mode.store(HELD, Ordering::Relaxed);
    }
}

impl State {
    fn mode(&self) -> u8 {
        self.mode.load(Ordering::Relaxed)
    }

    /// Waits until the link to the server has sent this many more bytes.
    fn send_over_link(&self, bytes: usize) {
        let bandwidth = self.bandwidth.load(Ordering::Relaxed);
        if bandwidth == 0 {
            return;
        }
        let mut free_at = self.link_free_at.lock().expect("no panic");
        let from = free_at.filter(|at| *at > Instant::now()).unwrap_or_else(Instant::now);
        let until = from + Duration::from_micros(bytes as u64 * 1_000_000 / bandwidth);
        *free_at = Some(until);
        drop(free_at);
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }
}

fn connect(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
    let handle = |stream: &TcpStream| stream.try_clone().expect("a handle");
    let number = state.next.fetch_add(1, Ordering::Relaxed);
    state.open.lock().expect("no panic").insert(number, [handle(client), handle(server)]);
    for (from, to, is_upstream) in [(client, server, true), (server, client, false)] {
        let (mut from, mut to, state) = (handle(from), handle(to), Arc::clone(state));
        let _ = from.set_read_timeout(Some(SLICE));
        let _ = to.set_nodelay(true);
        let (sender, receiver) = sync_channel(PIECES_MAX);
        let held = [handle(&from), handle(&to)];
        let link = is_upstream.then(|| Arc::clone(&state));
        thread::spawn(move || take(&mut from, &sender, link.as_deref()));
        thread::spawn(move || {
            give(&mut to, &receiver, &state);
            held.into_iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
            state.open.lock().expect("no panic").remove(&number);
        });
    }
}

/// Reads until the connection ends, no faster than the link allows; unread data waits at the sender.
fn take(from: &mut TcpStream, to: &SyncSender<Piece>, link: Option<&State>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let limited = link.filter(|link| link.bandwidth.load(Ordering::Relaxed) > 0);
        let piece_bytes = if limited.is_some() { LIMITED_PIECE_BYTES } else { PIECE_BYTES };
        match from.read(&mut buffer[..piece_bytes]) {
            Ok(0) => return,
            Ok(read) => {
                limited.into_iter().for_each(|link| link.send_over_link(read));
                if to.send((Instant::now(), buffer[..read].to_vec())).is_err() {
                    return;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Writes each chunk at its time, until there are no more or one was dropped.
fn give(to: &mut TcpStream, from: &Receiver<Piece>, state: &State) {
    let mut holed = false;
    loop {
        if holed && state.mode() != SILENT {
            return;
        }
        let (read, bytes) = match from.recv_timeout(SLICE) {
            Ok(piece) => piece,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while state.mode() == HELD || (state.mode() == PASS && read.elapsed() < state.delay()) {
            thread::sleep(SLICE.min(Duration::from_millis(5)));
        }
        if state.mode() == SILENT {
            holed = true;
        } else if holed || to.write_all(&bytes).is_err() {
            return;
        }
    }
}
