//! The rules of this repository that no compiler checks. Each failure names the place and the remedy.

mod code;
mod cycles;
mod files;
mod imports;
mod names;
mod places;
mod prose;
mod size;
mod vocabulary;

/// Panics if a rule is broken, with all breaches and the remedy.
#[track_caller]
fn hold(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n\n{}\n", breaches.join("\n"));
}
