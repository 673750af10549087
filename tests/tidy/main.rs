//! The house rules that no compiler holds. Each failure says where, and what to do.

mod code;
mod files;
mod imports;
mod places;
mod prose;
mod size;

/// Fails with every breach of a rule, and with what to do about them.
#[track_caller]
fn hold(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n\n{}\n", breaches.join("\n"));
}
