//! One client's connection, watched: whoever stops reading or writing is cut off.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::refusal;

/// A connection without progress for so long is cut. The engine's own answers take 10 s at the most.
const STALL: Duration = Duration::from_secs(15);
/// What a client must at least read within [`STALL`] for it to count as progress, unless it is all there is.
const PROGRESS_BYTES: usize = 16 << 10;

/// How a connection is doing.
#[derive(Debug)]
pub struct Connection {
    begun: Instant,
    progress_ms: AtomicU64,
    written: AtomicUsize,
    broken: AtomicBool,
    cut: Notify,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
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

    /// Returns once nothing has moved for long.
    pub async fn stalled(&self) {
        loop {
            let until = self.progress() + STALL;
            if until <= Instant::now() {
                return self.break_off();
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Bytes of a connection.
pub struct Watched {
    stream: TcpStream,
    connection: std::sync::Arc<Connection>,
    /// What is written in place of a refusal of hyper's own, how much of it has been, and how long hyper's was.
    refusal: Option<(Vec<u8>, usize, usize)>,
}

impl Watched {
    /// Watches a stream for its connection.
    pub fn new(stream: TcpStream, connection: std::sync::Arc<Connection>) -> Self {
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
                Poll::Pending => return Some(Poll::Pending),
                Poll::Ready(Ok(bytes)) if bytes > 0 => *written += bytes,
                Poll::Ready(failed) => return Some(Poll::Ready(failed)),
            }
        }
        let length = *length;
        self.refusal = None;
        Some(self.took(Ok(length)))
    }

    fn took(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(bytes) = written {
            self.connection.wrote(bytes);
        }
        Poll::Ready(written)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.connection.moved();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.refuse(cx, buf) {
            return refused;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.took(written)
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
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.took(written)
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
