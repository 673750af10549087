//! The bodies of the fuzz targets. cargo fuzz runs them on new input, `tests/corpus.rs` on all that is kept.
//!
//! Every input is decoded by hand and from left to right, so its meaning depends on nothing but itself: any bytes
//! are a valid input, and what is missing at the end reads as zeros.

pub mod batch;
mod bytes;
pub mod config;
pub mod cron;
pub mod fold;
mod kept;
pub mod moment;
mod promises;
pub mod record;
pub mod scenario;
pub mod settings;
mod shell;
pub mod span;
pub mod stored;

/// Runs one input; panics where it breaks something.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("batch", batch::run),
    ("config", config::run),
    ("cron", cron::run),
    ("fold", fold::run),
    ("moment", moment::run),
    ("record", record::run),
    ("scenario", scenario::run),
    ("settings", settings::run),
    ("span", span::run),
    ("stored", stored::run),
];
