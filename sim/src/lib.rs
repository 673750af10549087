//! A model of Kafka and a virtual clock that drive several instances of the scheduler's real core.
//!
//! Everything follows from a seed: [`world::World::run`] plays it, and [`oracle`] reads the broker's logs.

pub mod kafka;
pub mod oracle;
pub mod rng;
pub mod world;

/// Plays one seed. The error says which promise was broken, and when.
///
/// # Errors
/// The first broken promise.
pub fn play(seed: u64, verbose: bool) -> Result<world::Summary, String> {
    world::World::new(seed, verbose).run()
}
