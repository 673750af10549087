//! Puts the loop to sleep until another thread wakes it.

use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use crate::handle::Wake;
use crate::handle::status_board::StatusBoard;

pub(super) struct Sleeper {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
}

impl Sleeper {
    pub(super) fn new() -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
        Ok(Self { poll, events: Events::with_capacity(8), waker })
    }

    /// Returns a function that wakes the loop from any thread.
    pub(super) fn wake(&self) -> Wake {
        let waker = Arc::clone(&self.waker);
        Arc::new(move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "the loop cannot be woken; it continues within 100 ms");
            }
        })
    }

    /// Sleeps until the loop is woken, at most `timeout`. The heartbeat shows that the loop is alive.
    pub(super) fn sleep(&mut self, board: &StatusBoard, timeout: Duration) {
        board.heartbeat();
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the loop cannot sleep");
            std::thread::sleep(timeout.min(Duration::from_millis(10)));
        }
        board.heartbeat();
    }
}
