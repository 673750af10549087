//! The fuzz targets. cargo fuzz runs them on new inputs; `tests/corpus.rs` runs them on the stored corpus.
//!
//! Each input is decoded by hand from left to right, so its meaning depends on nothing else. Any bytes are a valid
//! input; missing bytes read as zeros.

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
pub mod snapshot;
pub mod span;
pub mod stored;

/// Runs a target on one input, and panics if a promise is broken.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("batch", batch::run),
    ("config", config::run),
    ("cron", cron::run),
    ("fold", fold::run),
    ("moment", moment::run),
    ("record", record::run),
    ("scenario", scenario::run),
    ("settings", settings::run),
    ("snapshot", snapshot::run),
    ("span", span::run),
    ("stored", stored::run),
];
