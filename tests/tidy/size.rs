//! Files, functions and comment lines are short.

use crate::code::read;
use crate::{files, hold};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 80;

/// The `max_width` of rustfmt.toml, which holds code to it, but not comments.
const COLUMNS_MAX: usize = 120;

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

#[test]
fn comment_lines_have_at_most_120_columns() {
    let mut breaches = Vec::new();
    for file in files::below("").into_iter().filter(|file| file.path.ends_with(".rs")) {
        let comments = file.text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
        let long = comments.map(|(at, line)| (at + 1, line.chars().count())).filter(|(_, n)| *n > COLUMNS_MAX);
        breaches.extend(long.map(|(line, columns)| format!("{}:{line}: {columns} columns", file.path)));
    }
    hold("A comment line has at most 120 columns. Wrap it.", &breaches);
}
