//! One client's connection, watched: whoever stops reading or writing is cut off.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::Body;
use super::refusal;

/// A connection without progress for so long is cut. The engine's own answers take 10 s at the most.
const STALL: Duration = Duration::from_secs(15);
/// What a client must at least read within [`STALL`] for it to count as progress, unless it is all there is.
const PROGRESS_BYTES: usize = 16 << 10;

/// How long a request's line and headers may take from their first byte on, and a new connection until it sends one.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection waits for its next request. Proxies and load balancers keep idle ones for up to 600 s, and answer
/// 502 if we close one just as they use it again.
const IDLE_MAX: Duration = Duration::from_secs(620);

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Nothing of the first request has come.
    New,
    /// A part of a request's line and headers has come.
    Asking,
    /// A request is being answered.
    Answering,
    /// It waits for the next request.
    Idle,
}

/// What a connection does, and since when.
#[derive(Debug)]
struct State {
    doing: Doing,
    since: Instant,
    /// Bytes have come during an answer: perhaps those of the next request.
    early: bool,
    /// The client does not take what is written.
    blocked: bool,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// No request has come, or not all of it.
    Request,
    /// The client does not read its answer.
    Stalled,
}

/// How a connection is doing.
#[derive(Debug)]
pub struct Connection {
    begun: Instant,
    state: Mutex<State>,
    changed: Notify,
    progress_ms: AtomicU64,
    written: AtomicUsize,
    broken: AtomicBool,
    cut: Notify,
}

impl Default for Connection {
    fn default() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            state: Mutex::new(State { doing: Doing::New, since: begun, early: false, blocked: false }),
            changed: Notify::new(),
            progress_ms: AtomicU64::new(0),
            written: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            cut: Notify::new(),
        }
    }
}

impl Connection {
    /// When something last moved.
    pub fn progress(&self) -> Instant {
        self.begun + Duration::from_millis(self.progress_ms.load(Ordering::Relaxed))
    }

    fn moved(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_ms.store(since, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: usize) {
        if self.written.fetch_add(bytes, Ordering::Relaxed) + bytes >= PROGRESS_BYTES {
            self.written.store(0, Ordering::Relaxed);
            self.moved();
        }
    }

    /// What was being sent cannot be finished. The connection will end with a reset, which no client takes for the end
    /// of an answer, whatever version of HTTP it speaks.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Ends it from outside.
    pub fn cut(&self) {
        self.break_off();
        self.cut.notify_one();
    }

    /// Returns once [`cut`](Self::cut) was called.
    pub async fn was_cut(&self) {
        self.cut.notified().await;
    }

    /// Returns once the client has kept us waiting for too long.
    pub async fn overdue(&self) -> Overdue {
        loop {
            let (until, why) = self.deadline();
            if until <= Instant::now() {
                if why == Overdue::Stalled {
                    self.break_off();
                }
                return why;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn deadline(&self) -> (Instant, Overdue) {
        let state = self.state();
        match state.doing {
            Doing::Answering => (self.progress() + STALL, Overdue::Stalled),
            _ if state.blocked => (self.progress() + STALL, Overdue::Stalled),
            Doing::New | Doing::Asking => (state.since + HEADERS_TIME_MAX, Overdue::Request),
            Doing::Idle => (state.since + IDLE_MAX, Overdue::Request),
        }
    }

    fn received(&self) {
        self.moved();
        let mut state = self.state();
        match state.doing {
            Doing::New | Doing::Idle => self.turn(&mut state, Doing::Asking),
            Doing::Answering => state.early = true,
            Doing::Asking => {}
        }
    }

    /// A request is there, and its answer begins.
    pub fn answering(&self) {
        self.turn(&mut self.state(), Doing::Answering);
    }

    fn answered(&self) {
        let mut state = self.state();
        let next = if state.early { Doing::Asking } else { Doing::Idle };
        self.turn(&mut state, next);
    }

    fn turn(&self, state: &mut State, doing: Doing) {
        (state.doing, state.since, state.early) = (doing, Instant::now(), false);
        self.changed.notify_one();
    }

    fn blocked(&self, blocked: bool) {
        let mut state = self.state();
        if std::mem::replace(&mut state.blocked, blocked) != blocked {
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that tells its connection when all of it has been handed over.
pub struct Answered {
    body: Body,
    connection: Arc<Connection>,
}

impl Answered {
    /// For a connection that is [`answering`](Connection::answering).
    pub fn new(body: Body, connection: Arc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.connection.answered();
    }
}

/// Bytes of a connection.
pub struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// What is written in place of a refusal of hyper's own, how much of it has been, and how long hyper's was.
    refusal: Option<(Vec<u8>, usize, usize)>,
}

impl Watched {
    /// Watches a stream for its connection.
    pub fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, refusal: None }
    }

    /// Puts a body that says what is wrong into a refusal of hyper's own, which has none. Nothing if these bytes are
    /// something else.
    fn refuse(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            self.refusal = Some((refusal::with_body(bytes)?, 0, bytes.len()));
        }
        let (ours, written, length) = self.refusal.as_mut()?;
        while *written < ours.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &ours[*written..]) {
                Poll::Pending => {
                    self.connection.blocked(true);
                    return Some(Poll::Pending);
                }
                Poll::Ready(Ok(bytes)) if bytes > 0 => *written += bytes,
                Poll::Ready(failed) => return Some(Poll::Ready(failed)),
            }
        }
        let length = *length;
        self.refusal = None;
        Some(self.took(Ok(length)))
    }

    fn took(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.connection.blocked(false);
        if let Ok(bytes) = written {
            self.connection.wrote(bytes);
        }
        Poll::Ready(written)
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => self.took(written),
            Poll::Pending => {
                self.connection.blocked(true);
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.connection.received();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.refuse(cx, buf) {
            return refused;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next())
            && let Some(refused) = self.refuse(cx, only)
        {
            return refused;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.broken.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.connection.broken.load(Ordering::Relaxed) {
            // Closing then sends a reset. Where this is not possible the client still misses the list's end.
            let _ = self.stream.set_zero_linger();
        }
    }
}
