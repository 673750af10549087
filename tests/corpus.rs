//! Replays the fuzzers' corpus, every entry of `fuzz/corpus`, without cargo fuzz and on stable Rust.
#![cfg(all(feature = "config", feature = "calendar", feature = "state-dir"))]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn every_entry_of_the_corpus_passes_whole_and_cut() {
    for (name, run) in fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("an entry").path();
            let data = fs::read(&path).expect("a file");
            // Missing bytes at the end read as zeros, so each half is a valid input as well.
            for input in [&data[..], &data[..data.len() / 2]] {
                let passed = catch_unwind(AssertUnwindSafe(|| run(input)));
                assert!(
                    passed.is_ok(),
                    "{} fails in target {name} with its first {} bytes",
                    path.display(),
                    input.len()
                );
            }
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}

#[test]
fn every_target_accepts_an_empty_input() {
    for (_, run) in fuzz::TARGETS {
        run(&[]);
    }
}
