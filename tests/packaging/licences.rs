//! The licences of everything that is built are among those that `deny.toml` allows.
#![cfg(target_os = "linux")]

use serde_json::Value;

use crate::{list, path, read, text, tool};

fn allowed() -> Vec<String> {
    let text = read("deny.toml");
    let list = text.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']')).expect("a list").0;
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether one of the ways to read an SPDX expression needs nothing but these.
fn fits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "-with-");
    let mut words = spaced.split_whitespace().peekable();
    fn either<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>, allowed: &[String]) -> bool {
        let mut one = true;
        let mut any = false;
        loop {
            one &= match words.next() {
                Some("(") => either(words, allowed),
                Some(name) => allowed.iter().any(|allowed| allowed == name),
                None => false,
            };
            match words.next() {
                Some("AND") => {}
                Some("OR") => {
                    any |= one;
                    one = true;
                }
                _ => return any | one,
            }
        }
    }
    either(&mut words, allowed)
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let allowed = ["MIT".to_owned(), "Zlib".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND Zlib", "MIT AND Zlib OR GPL-3.0"] {
        assert!(fits(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL-3.0", "MIT WITH something", ""] {
        assert!(!fits(bad, &allowed), "{bad}");
    }
}

#[test]
fn nothing_is_built_that_is_not_allowed() {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let manifest = path("Cargo.toml");
    let manifest = manifest.to_str().expect("UTF-8");
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path", manifest];
    let said = tool(env!("CARGO"), &[&args[..], &["--filter-platform", &target]].concat()).expect("cargo is there");
    let line = said.lines().find(|line| line.starts_with('{')).expect("JSON");
    let metadata: Value = serde_json::from_str(line).expect("JSON");
    let allowed = allowed();
    let foreign = list(&metadata, "/packages").iter().filter(|package| !package["source"].is_null());
    let wrong: Vec<String> = foreign
        .map(|package| (text(package, "/name"), package["license"].as_str().unwrap_or("none")))
        .filter(|(_, licence)| !fits(licence, &allowed))
        .map(|(name, licence)| format!("{name}: {licence}"))
        .collect();
    assert!(wrong.is_empty(), "deny.toml does not allow these: {wrong:#?}");
}
