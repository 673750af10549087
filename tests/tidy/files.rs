//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders of generated files.
const LEFT_OUT: &[&str] = &["target", ".git", "artifacts", "corpus"];

/// A file by its path from the root, with slashes.
pub struct File {
    pub path: String,
    pub text: String,
}

/// Returns every text file below a folder, or that file alone.
pub fn below(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join(folder), &mut paths);
    paths.sort_unstable();
    let relative = |path: &Path| path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
    let file = |path: PathBuf| Some(File { text: fs::read_to_string(&path).ok()?, path: relative(&path) });
    paths.into_iter().filter_map(file).collect()
}

/// Returns the Rust files below these folders.
pub fn rust(folders: &[&str]) -> Vec<File> {
    let files: Vec<File> =
        folders.iter().flat_map(|folder| below(folder)).filter(|f| f.path.ends_with(".rs")).collect();
    assert!(!files.is_empty(), "no Rust files in {folders:?}");
    files
}

/// Returns whether there is such a file or folder.
pub fn exists(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

fn walk(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        return into.push(path.to_owned());
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.map(|entry| entry.expect("an entry")) {
        if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            walk(&entry.path(), into);
        }
    }
}
