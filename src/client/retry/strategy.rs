//! Chooses the delays of retries.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Chooses the delay before each retry, and when to give up.
///
/// ```
/// use std::time::Duration;
/// use kafka_scheduler::client::retry::{Constant, Exponential, Strategy};
///
/// let seconds = |strategy: &dyn Strategy, attempt| strategy.delay(attempt).map(|delay| delay.as_secs());
///
/// let constant = Constant(Duration::from_secs(30)).limited(3);
/// assert_eq!([1, 3, 4].map(|n| seconds(&constant, n)), [Some(30), Some(30), None]);
///
/// let doubling = Exponential { first: Duration::from_secs(1), factor: 2.0 }.capped(Duration::from_secs(60));
/// assert_eq!([1, 2, 3, 9].map(|n| seconds(&doubling, n)), [Some(1), Some(2), Some(4), Some(60)]);
///
/// // Spread by up to a fifth to both sides, so records that failed together are not retried together.
/// let spread = Constant(Duration::from_secs(100)).jittered(0.2);
/// assert!((80..=120).contains(&seconds(&spread, 1).expect("it goes on for ever")));
/// ```
pub trait Strategy: Debug {
    /// Returns the delay before the retry with this number, counted from 1; `None` gives the record up.
    fn delay(&self, attempt: u32) -> Option<Duration>;

    /// Limits each delay to `max`. What is applied afterwards, such as jitter, may exceed it.
    fn capped(self, max: Duration) -> Capped<Self>
    where
        Self: Sized,
    {
        Capped { inner: self, max }
    }

    /// Changes each delay at random, by at most this part of it: 0.2 turns 100 s into 80 to 120 s. Parts below 0 count
    /// as 0, and parts above 1 as 1.
    fn jittered(self, part: f64) -> Jittered<Self>
    where
        Self: Sized,
    {
        Jittered { inner: self, part: if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) } }
    }

    /// Gives a record up after this many retries; 0 allows none.
    fn limited(self, attempts: u32) -> Limited<Self>
    where
        Self: Sized,
    {
        Limited { inner: self, attempts }
    }
}

/// The same delay each time, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant(pub Duration);

impl Strategy for Constant {
    fn delay(&self, _: u32) -> Option<Duration> {
        Some(self.0)
    }
}

/// Delays that grow by a factor, for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    /// The delay before the first retry.
    pub first: Duration,
    /// The ratio of each delay to the one before. Below 1, delays shrink.
    pub factor: f64,
}

/// The first delay is 5 s, and each is twice the one before.
impl Default for Exponential {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), factor: 2.0 }
    }
}

impl Strategy for Exponential {
    /// A delay beyond 100 years is 100 years: schedules have dates, and these must not overflow.
    fn delay(&self, attempt: u32) -> Option<Duration> {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        Some(scaled(self.first, self.factor.max(0.0).powi(exponent)))
    }
}

/// A strategy whose delays have a maximum: made by [`Strategy::capped`].
#[derive(Clone, Copy, Debug)]
pub struct Capped<S> {
    inner: S,
    max: Duration,
}

impl<S: Strategy> Strategy for Capped<S> {
    fn delay(&self, attempt: u32) -> Option<Duration> {
        Some(self.inner.delay(attempt)?.min(self.max))
    }
}

/// A strategy whose delays vary at random: made by [`Strategy::jittered`].
#[derive(Clone, Copy, Debug)]
pub struct Jittered<S> {
    inner: S,
    part: f64,
}

impl<S: Strategy> Strategy for Jittered<S> {
    fn delay(&self, attempt: u32) -> Option<Duration> {
        let delay = self.inner.delay(attempt)?;
        // Each RandomState has other keys, which is random enough to spread retries.
        let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
        Some(scaled(delay, 1.0 + self.part * (2.0 * random - 1.0)))
    }
}

/// A strategy that gives up after some retries: made by [`Strategy::limited`].
#[derive(Clone, Copy, Debug)]
pub struct Limited<S> {
    inner: S,
    attempts: u32,
}

impl<S: Strategy> Strategy for Limited<S> {
    fn delay(&self, attempt: u32) -> Option<Duration> {
        if attempt <= self.attempts { self.inner.delay(attempt) } else { None }
    }
}

/// Multiplies a delay, up to 100 years.
fn scaled(delay: Duration, factor: f64) -> Duration {
    const MAX_S: f64 = 100.0 * 365.0 * 86_400.0;
    let seconds = delay.as_secs_f64() * factor;
    // The product may be infinite, or NaN from 0 times infinity.
    Duration::from_secs_f64(if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, MAX_S) })
}
