//! Files and functions are short.

use crate::code::read;
use crate::{files, hold};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 80;

/// Files that are still longer. The list may only become shorter.
const TOO_LONG: &[&str] = &[];

#[test]
fn files_have_at_most_500_lines() {
    let mut breaches = Vec::new();
    for file in files::rust(&["src", "sim/src", "fuzz/src", "tests/tidy"]) {
        let lines = file.text.lines().count();
        let excused = TOO_LONG.contains(&file.path.as_str());
        if lines > FILE_LINES_MAX && !excused {
            breaches.push(format!("{}: {lines} lines. It does two jobs: split it.", file.path));
        } else if lines <= FILE_LINES_MAX && excused {
            breaches.push(format!("{}: {lines} lines. Take it off the list in tests/tidy/size.rs.", file.path));
        }
    }
    hold("A file has at most 500 lines.", &breaches);
}

#[test]
fn functions_have_at_most_80_lines() {
    let mut breaches = Vec::new();
    for file in read(&["src", "sim/src", "fuzz/src", "tests/tidy"]) {
        let long = file.functions.iter().filter(|(.., lines)| *lines > FUNCTION_LINES_MAX);
        breaches.extend(long.map(|(name, line, lines)| format!("{}:{line}: {name} has {lines} lines", file.path)));
    }
    hold("A function has at most 80 lines. Give its parts names.", &breaches);
}
