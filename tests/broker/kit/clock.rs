//! A wall clock that steps, which a preloaded library shows to a process.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::target_dir;

/// The offset of one process's clock, in a file that the process maps. A change takes effect at once.
pub struct SteppedClock {
    file: PathBuf,
}

impl SteppedClock {
    /// Creates a clock with the right time.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let clock = Self { file: target_dir().join("tmp").join(format!("clock-{}-{n}", std::process::id())) };
        clock.set(0);
        clock
    }

    /// Returns the environment variables for the process.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        [("LD_PRELOAD", text(library())), ("STEPPED_CLOCK", text(&self.file))]
    }

    /// Sets the offset.
    pub fn set(&self, ahead_s: i64) {
        // The process has the file mapped, so it must be written in place.
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

/// Returns the library, compiled once by the C compiler that the build needs anyway.
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
