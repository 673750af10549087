//! Waits for conditions, and reads the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The polling interval.
const EVERY: Duration = Duration::from_millis(50);

/// Polls until there is a result; panics with `what` after `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "timed out after {limit:?}: {what}");
        std::thread::sleep(EVERY);
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292 million")
}

/// Seconds since 1970.
pub fn now_s() -> i64 {
    now_ms() / 1000
}

/// Sleeps until the clock shows `ms`. Use it to produce at a given time, and never to wait for an effect.
pub fn until_ms(ms: i64) {
    if let Ok(left) = u64::try_from(ms - now_ms()) {
        std::thread::sleep(Duration::from_millis(left));
    }
}
