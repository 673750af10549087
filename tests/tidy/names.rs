//! Names of tests.

use proc_macro2::{TokenStream, TokenTree};

use crate::{files, hold};

const TEST_NAME_CHARS_MAX: usize = 60;

/// Collects the names of test functions, those in macros included.
fn tests(tokens: TokenStream, into: &mut Vec<(String, usize)>) {
    // An attribute `test` has been seen, and then `fn`.
    let (mut test, mut function) = (false, false);
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                test |= group.stream().to_string() == "test";
                tests(group.stream(), into);
            }
            TokenTree::Ident(name) if function => {
                into.push((name.to_string(), name.span().start().line));
                (test, function) = (false, false);
            }
            TokenTree::Ident(name) => function = test && name == "fn",
            _ => {}
        }
    }
}

#[test]
fn test_names_have_at_most_60_characters() {
    let mut breaches = Vec::new();
    let mut read = 0;
    for file in files::rust(&["src", "sim/src", "tests"]) {
        let mut names = Vec::new();
        tests(file.text.parse().expect("Rust code"), &mut names);
        read += names.len();
        let long = names.iter().filter(|(name, _)| name.chars().count() > TEST_NAME_CHARS_MAX);
        breaches.extend(long.map(|(name, line)| format!("{}:{line}: {name}", file.path)));
    }
    assert!(read > 400, "only {read} tests were read");
    hold("A test's name has at most 60 characters. Its module names the subject: takeover::barrier_first.", &breaches);
}

#[test]
fn tests_are_found_in_macros_too() {
    let code =
        "fn a() {} #[test] fn b() {} #[test] #[ignore] fn c() {} proptest! { #[test] fn d(x in 0..9) {} } fn e() {}";
    let mut found = Vec::new();
    tests(code.parse().expect("Rust code"), &mut found);
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
}
