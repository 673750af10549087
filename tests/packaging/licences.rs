//! `deny.toml` allows the licences of all dependencies.
#![cfg(target_os = "linux")]

use serde_json::Value;

use crate::{list, path, read, text, tool};

fn allowed() -> Vec<String> {
    let text = read("deny.toml");
    let list = text.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']')).expect("a list").0;
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns whether an SPDX expression has an alternative with only these licences.
fn fits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "-with-");
    let mut tokens = spaced.split_whitespace().peekable();
    fn either<'a>(tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>, allowed: &[String]) -> bool {
        let mut one = true;
        let mut any = false;
        loop {
            one &= match tokens.next() {
                Some("(") => either(tokens, allowed),
                Some(name) => allowed.iter().any(|allowed| allowed == name),
                None => false,
            };
            match tokens.next() {
                Some("AND") => {}
                Some("OR") => {
                    any |= one;
                    one = true;
                }
                _ => return any | one,
            }
        }
    }
    either(&mut tokens, allowed)
}

#[test]
fn spdx_expressions_are_evaluated() {
    let allowed = ["MIT".to_owned(), "Zlib".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND Zlib", "MIT AND Zlib OR GPL-3.0"] {
        assert!(fits(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL-3.0", "MIT WITH something", ""] {
        assert!(!fits(bad, &allowed), "{bad}");
    }
}

#[test]
fn all_licences_are_allowed() {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let manifest = path("Cargo.toml");
    let manifest = manifest.to_str().expect("UTF-8");
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path", manifest];
    let said = tool(env!("CARGO"), &[&args[..], &["--filter-platform", &target]].concat()).expect("cargo is installed");
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
