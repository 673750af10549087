//! Monitors a client's connection, and ends it if the client stops reading or writing.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hyper_errors;

/// How long a connection may make no progress. The engine takes at most 10 s to answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A client makes progress if it reads at least so much within [`STALL_TIMEOUT`], or all that is left.
const PROGRESS_BYTES_MIN: usize = 16 << 10;

/// How long a request's line and headers may take from their first byte, and a new connection until it sends one.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle. Proxies and load balancers keep idle ones for up to 600 s, and answer 502 if we
/// close one just as they use it again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(620);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of the first request has arrived.
    New,
    /// A part of a request's line and headers has arrived.
    Receiving,
    /// A response is being sent.
    Responding,
    /// The next request is awaited.
    Idle,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Bytes have arrived during a response: perhaps those of the next request.
    received_early: bool,
    /// The client does not read.
    blocked: bool,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No request has arrived, or not all of it.
    Request,
    /// The client does not read its response.
    Stalled,
}

/// The state of a connection, shared by its stream, its response and the server.
#[derive(Debug)]
pub(super) struct Connection {
    begun: Instant,
    state: Mutex<State>,
    changed: Notify,
    progress_ms: AtomicU64,
    written: AtomicUsize,
    resets: AtomicBool,
    aborted: Notify,
}

impl Default for Connection {
    fn default() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            state: Mutex::new(State { phase: Phase::New, since: begun, received_early: false, blocked: false }),
            changed: Notify::new(),
            progress_ms: AtomicU64::new(0),
            written: AtomicUsize::new(0),
            resets: AtomicBool::new(false),
            aborted: Notify::new(),
        }
    }
}

impl Connection {
    /// Returns when the connection last made progress.
    pub(super) fn last_progress(&self) -> Instant {
        self.begun + Duration::from_millis(self.progress_ms.load(Ordering::Relaxed))
    }

    fn made_progress(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_ms.store(since, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: usize) {
        if self.written.fetch_add(bytes, Ordering::Relaxed) + bytes >= PROGRESS_BYTES_MIN {
            self.written.store(0, Ordering::Relaxed);
            self.made_progress();
        }
    }

    /// Makes the connection end with a reset, because its response is incomplete. No client takes a reset for the end
    /// of a response, whatever version of HTTP it speaks.
    pub(super) fn reset_on_close(&self) {
        self.resets.store(true, Ordering::Relaxed);
    }

    /// Ends the connection from outside.
    pub(super) fn abort(&self) {
        self.reset_on_close();
        self.aborted.notify_one();
    }

    /// Returns once [`abort`](Self::abort) was called.
    pub(super) async fn aborted(&self) {
        self.aborted.notified().await;
    }

    /// Returns once the client has exceeded a timeout.
    pub(super) async fn overdue(&self) -> Overdue {
        loop {
            let (until, why) = self.deadline();
            if until <= Instant::now() {
                if why == Overdue::Stalled {
                    self.reset_on_close();
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
        match state.phase {
            Phase::Responding => (self.last_progress() + STALL_TIMEOUT, Overdue::Stalled),
            _ if state.blocked => (self.last_progress() + STALL_TIMEOUT, Overdue::Stalled),
            Phase::New | Phase::Receiving => (state.since + HEADERS_TIMEOUT, Overdue::Request),
            Phase::Idle => (state.since + IDLE_TIMEOUT, Overdue::Request),
        }
    }

    fn received(&self) {
        self.made_progress();
        let mut state = self.state();
        match state.phase {
            Phase::New | Phase::Idle => self.enter(&mut state, Phase::Receiving),
            Phase::Responding => state.received_early = true,
            Phase::Receiving => {}
        }
    }

    /// Records that a request has arrived and its response begins.
    pub(super) fn responding(&self) {
        self.enter(&mut self.state(), Phase::Responding);
    }

    fn responded(&self) {
        let mut state = self.state();
        let next = if state.received_early { Phase::Receiving } else { Phase::Idle };
        self.enter(&mut state, next);
    }

    fn enter(&self, state: &mut State, phase: Phase) {
        (state.phase, state.since, state.received_early) = (phase, Instant::now(), false);
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

/// A body that notifies its connection when all of it has been handed to hyper.
pub(super) struct ResponseBody<B> {
    body: B,
    connection: Arc<Connection>,
}

impl<B> ResponseBody<B> {
    /// Wraps a body, for a connection that is [`responding`](Connection::responding).
    pub(super) fn new(body: B, connection: Arc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

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

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        self.connection.responded();
    }
}

/// A stream that records a connection's progress.
pub(super) struct MonitoredStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// An error of hyper's with our body, how much of it has been written, and the length of hyper's.
    error: Option<(Vec<u8>, usize, usize)>,
}

impl MonitoredStream {
    /// Wraps a stream.
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, error: None }
    }

    /// Writes an error of hyper's with a body. Returns `None` if these bytes are something else.
    fn write_error(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.error.is_none() {
            self.error = Some((hyper_errors::with_body(bytes)?, 0, bytes.len()));
        }
        let (ours, written, length) = self.error.as_mut()?;
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
        self.error = None;
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

impl AsyncRead for MonitoredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.connection.received();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(written) = self.write_error(cx, buf) {
            return written;
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
            && let Some(written) = self.write_error(cx, only)
        {
            return written;
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
        if self.connection.resets.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for MonitoredStream {
    fn drop(&mut self) {
        if self.connection.resets.load(Ordering::Relaxed) {
            // Closing then sends a reset. If this fails, the client still misses the list's end.
            let _ = self.stream.set_zero_linger();
        }
    }
}
