//! A wall clock that steps, shown to a process by a library that is preloaded into it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::target_dir;

/// By how much one process's clock is ahead. It sees a change at once.
pub struct SteppedClock {
    file: PathBuf,
}

impl SteppedClock {
    /// One that is right so far.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let clock = Self { file: target_dir().join("tmp").join(format!("clock-{}-{n}", std::process::id())) };
        clock.set(0);
        clock
    }

    /// The environment of a process that is to see it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        [("LD_PRELOAD", text(library())), ("STEPPED_CLOCK", text(&self.file))]
    }

    /// Sets it to be ahead by so much.
    pub fn set(&self, ahead_s: i64) {
        // In place, since the process has it mapped.
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&self.file).expect("a file");
        std::os::unix::fs::FileExt::write_all_at(&file, &ahead_s.to_ne_bytes(), 0).expect("written");
    }
}

impl Drop for SteppedClock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Compiled once, by the C compiler that the build needs anyway.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/broker/kit/clock.c");
        let library = target_dir().join("tmp").join(format!("clock-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-std=c11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler named cc");
        assert!(status.success(), "cc of {}: {status}", source.display());
        library
    })
}
