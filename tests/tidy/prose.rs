//! README and docs.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::{files, hold};

/// Returns the anchors that GitHub gives to a text's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => heading.iter_mut().for_each(|heading| heading.push_str(&part)),
            Event::End(TagEnd::Heading(_)) => {
                let slug = slug(&heading.take().unwrap_or_default());
                let count = seen.entry(slug.clone()).or_default();
                anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
                *count += 1;
            }
            _ => {}
        }
    }
    anchors
}

/// Letters, digits, hyphens and underscores in lower case, and hyphens for spaces.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn links(text: &str) -> Vec<String> {
    let link = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
        _ => None,
    };
    Parser::new_ext(text, Options::ENABLE_TABLES).filter_map(link).collect()
}

#[test]
fn links_lead_somewhere() {
    let texts: Vec<files::File> = files::below("").into_iter().filter(|file| file.path.ends_with(".md")).collect();
    assert!(texts.iter().any(|file| file.path == "README.md"), "README.md was not read");
    let mut breaches = Vec::new();
    for file in &texts {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(&file.text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = if path.is_empty() { file.path.clone() } else { join(folder, path) };
            if !files::exists(&path) {
                breaches.push(format!("{}: ({link}): there is no {path}", file.path));
                continue;
            }
            let of = texts.iter().find(|text| text.path == path);
            if !anchor.is_empty() && of.is_some_and(|of| !anchors(&of.text).contains(anchor)) {
                breaches.push(format!("{}: ({link}): {path} has no heading for it", file.path));
            }
        }
    }
    hold("A link leads to a file of the repository, and to a heading that it has. Fix or remove it.", &breaches);
}

/// Returns the code spans that are paths of Rust files.
fn rust_paths(text: &str) -> Vec<String> {
    let is_path =
        |span: &str| span.ends_with(".rs") && span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let span = |event| match event {
        Event::Code(span) if is_path(&span) => Some(span.into_string()),
        _ => None,
    };
    Parser::new_ext(text, Options::ENABLE_TABLES).filter_map(span).collect()
}

#[test]
fn rust_files_named_in_docs_exist() {
    let all = files::below("");
    let rust: Vec<&str> = all.iter().map(|file| file.path.as_str()).filter(|path| path.ends_with(".rs")).collect();
    let (mut breaches, mut read) = (Vec::new(), 0);
    for file in all.iter().filter(|file| file.path.ends_with(".md")) {
        for named in rust_paths(&file.text) {
            read += 1;
            let end = format!("/{named}");
            let count = rust.iter().filter(|path| path.ends_with(&end)).count();
            if !rust.contains(&named.as_str()) && count != 1 {
                breaches.push(format!("{}: `{named}`: {count} files have this name", file.path));
            }
        }
    }
    assert!(read > 50, "only {read} paths were read");
    let rule = "A Rust file that a document names exists: by its path from the root, or by the end of it, if that is \
                unique. Correct the path, or lengthen it.";
    hold(rule, &breaches);
}

#[test]
fn only_code_spans_that_are_rust_paths_are_read() {
    let text = "`src/a.rs`, b.rs, `*.rs`, `c.rs d`, `e.md`\n\n| x |\n|---|\n| `f-g.rs` |\n\n```\n`h.rs`\n```\n";
    assert_eq!(rust_paths(text), ["src/a.rs", "f-g.rs"]);
}

/// A relative path from a folder.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# What it promises\n## `swarm --seeds N`, twice\n## Twice\n## Twice\n";
    let expected = ["what-it-promises", "swarm---seeds-n-twice", "twice", "twice-1"];
    assert_eq!(anchors(text), expected.map(str::to_owned).into());
}
