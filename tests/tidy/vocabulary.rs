//! Words that were replaced by the field's terms stay out of code, comments, messages and docs.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};

use crate::{files, hold};

/// Phrases, separated by `|`, and the term to use instead.
struct Retired {
    phrases: &'static str,
    instead: &'static str,
    scope: Scope,
    /// Longer phrases with another meaning.
    allowed: &'static [&'static str],
    /// Files and folders where the word means something else.
    places: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Identifiers of Rust code, by their parts: `KeyWord` and `key_word` contain `word`.
    Names,
    /// All text, identifiers included.
    Text,
    /// All text but identifiers of several words.
    Prose,
}

impl Retired {
    const fn except(mut self, allowed: &'static [&'static str]) -> Self {
        self.allowed = allowed;
        self
    }

    const fn outside(mut self, places: &'static [&'static str]) -> Self {
        self.places = places;
        self
    }
}

const fn retired(scope: Scope, phrases: &'static str, instead: &'static str) -> Retired {
    Retired { phrases, instead, scope, allowed: &[], places: &[] }
}

const fn name(phrases: &'static str, instead: &'static str) -> Retired {
    retired(Scope::Names, phrases, instead)
}

const fn text(phrases: &'static str, instead: &'static str) -> Retired {
    retired(Scope::Text, phrases, instead)
}

const fn prose(phrases: &'static str, instead: &'static str) -> Retired {
    retired(Scope::Prose, phrases, instead)
}

/// What is meant in English, and not in the retired sense, is excepted.
const RETIRED: &[Retired] = &[
    // The core.
    text("behind", "after (at a later offset), lags (has not caught up)").except(&[
        "left behind",
        "leaves behind",
        "nothing behind",
        "batches behind",
        "fall behind",
        "lags behind",
        "is behind",
        "was behind",
        "ever behind",
        "ms behind",
        "behind ms",
        "behind max",
        "are behind",
    ]),
    name("word|words", "KeyEntry, KeyTable, record").outside(&["tests/tidy/"]),
    text("newer word|newer words|older word|older words|earlier word|earlier words|last word|latest word", "record"),
    name("life|lives", "OwnedPartition; in sim: incarnation"),
    name("meaning", "RecordKind"),
    text("shelf|shelves", "queue"),
    name("rack|racks", "retry slot"),
    name("lot|lots", "Lane"),
    text("letter|letters", "dead letter")
        // Those of the alphabet.
        .except(&["dead letter", "dead letters", "letters digits", "letter spacing"]),
    text("outrun|outran", "overtaken; in code: needs_rewrite"),
    text("suspect|suspects", "isolated"),
    text("condemn|condemned", "to_dead_letter"),
    text("barred", "waiting for a rewrite"),
    text("put off|puts off|putting off", "parked; in code: deferred"),
    name("patience|patient", "Backoff; in tests: TIMEOUT"),
    name("narrow down", "bisect"),
    text("unfit", "invalid"),
    name("identity|identities", "origin_offset"),
    name("formers", "previous_owners"),
    name("today", "leftover_cutoff").outside(&["sim/"]),
    // The end of a transaction is a marker.
    name("mark|marks", "Origin (header), CommitOffsets (purpose), clean_commit_due (flag)")
        .except(&["mark outstanding"])
        .outside(&["sim/src/kafka/"]),
    text("floor|floors", "start marker; in code: StartMarker").except(&["math floor"]),
    // The shell.
    text("voice", "Diagnostics"),
    text("pump", "EngineLoop, the loop"),
    text("turnstile", "CommitOrder"),
    name("inbox", "ForwardedQueue"),
    text("handful|handfuls", "fetched records"),
    name("means", "TransactionRun"),
    name("ear", "LastError"),
    name("kin", "our client ids"),
    name("stranger|strangers", "foreign members"),
    name("lately", "RecentActivity"),
    text("reassert|reasserts|reasserted|reassertion", "rewrite"),
    text("written again|writes again", "rewritten, rewrites"),
    name("blame|guilty", "Attribution, rejected items"),
    name("strike|strikes|struck", "consecutive_failures; in sim: inject"),
    // Phrases.
    text("anew", "again; recreated, rejoined"),
    // A user of Unix.
    text("nobody|whoever|somebody", "user, caller, instance, broker").except(&["as nobody"]),
    text("lies|lain", "is at, is in"),
    text("rightful", "expected"),
    text("reckon|reckons|reckoned", "estimate, count"),
    text("existing scheduler", "etf1/kafka-message-scheduler"),
    // An example of another project has such a header.
    text("customer header|customer headers", "user headers").outside(&["tests/broker/reference.rs"]),
    prose("stands in|stand in", "is in"),
    prose("is none|are none", "is not one, are not any").except(&["there is none", "there are none"]),
    prose("so that", "so"),
];

/// Files whose text is not the project's own, or that name the retired words to explain them.
const UNREAD: &[&str] = &["tests/tidy/vocabulary.rs", "tests/packaging/schemas/", "docs/glossary.md"];

const READ: &[&str] = &[".rs", ".md", ".html", ".json", ".yml", ".yaml", ".toml", ".service", ".ci/run"];

/// A word in lower case.
struct Word {
    text: String,
    line: usize,
    /// It belongs to the same identifier as the word before it.
    joined: bool,
}

/// Splits text into words, and identifiers into their parts.
fn words(text: &str, first_line: usize) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let chars: Vec<char> = line.chars().collect();
        let letter = |at: usize| chars.get(at).is_some_and(|c| c.is_alphabetic());
        let lower = |at: usize| chars.get(at).is_some_and(|c| c.is_lowercase());
        // `KeyTable` and `DNSName` have two words each.
        let hump = |at: usize| letter(at - 1) && !lower(at) && (lower(at - 1) || lower(at + 1));
        let mut start = 0;
        for end in 1..=chars.len() {
            if letter(end) && letter(end - 1) && !hump(end) {
                continue;
            }
            if letter(start) {
                let text = chars[start..end].iter().collect::<String>().to_lowercase();
                let joined = start > 0 && (letter(start - 1) || chars[start - 1] == '_');
                words.push(Word { text, line: first_line + number, joined });
            }
            start = end;
        }
    }
    words
}

/// Collects the identifiers of code, without comments and strings.
fn names(tokens: TokenStream, into: &mut Vec<Word>) {
    for token in tokens {
        match token {
            TokenTree::Ident(name) => into.extend(words(&name.to_string(), name.span().start().line)),
            TokenTree::Group(group) => names(group.stream(), into),
            _ => {}
        }
    }
}

/// Returns the lines on which a retired phrase begins.
fn find(retired: &Retired, words: &[Word]) -> Vec<usize> {
    let joined = |word: &Word| match retired.scope {
        Scope::Names => word.joined,
        Scope::Text => true,
        Scope::Prose => !word.joined,
    };
    let begins = |from: usize, phrase: &[&str]| {
        let words = &words[from..];
        let same = words.iter().zip(phrase).all(|(word, part)| word.text == *part);
        same && words.len() >= phrase.len() && words[1..phrase.len()].iter().all(joined)
    };
    let split = |phrase: &'static str| phrase.split(' ').collect::<Vec<_>>();
    let phrases: Vec<Vec<&str>> = retired.phrases.split('|').map(split).collect();
    let allowed: Vec<Vec<&str>> = retired.allowed.iter().copied().map(split).collect();
    let within =
        |at: usize, phrase: &[&str]| (at.saturating_sub(phrase.len() - 1)..=at).any(|from| begins(from, phrase));
    let hit = |at: &usize| phrases.iter().any(|p| begins(*at, p)) && !allowed.iter().any(|p| within(*at, p));
    (0..words.len()).filter(hit).map(|at| words[at].line).collect()
}

/// The folder that a count belongs to: those of `src` one by one.
fn folder(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let depth = if parts[0] == "src" { 2 } else { 1 };
    parts[..parts.len().min(depth)].join("/").trim_end_matches(".rs").to_owned()
}

#[test]
fn retired_words_are_not_used() {
    let mut breaches = Vec::new();
    let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let read = |path: &str| READ.iter().any(|end| path.ends_with(end)) && !UNREAD.iter().any(|un| path.starts_with(un));
    for file in files::below("").into_iter().filter(|file| read(&file.path)) {
        let text = words(&file.text, 1);
        let mut identifiers = Vec::new();
        if file.path.ends_with(".rs") {
            names(file.text.parse().expect("Rust code"), &mut identifiers);
        }
        for retired in RETIRED.iter().filter(|retired| !retired.places.iter().any(|p| file.path.starts_with(p))) {
            for line in find(retired, if retired.scope == Scope::Names { &identifiers } else { &text }) {
                breaches.push(format!("{}:{line}: {}: say {}", file.path, retired.phrases, retired.instead));
                *counts.entry(retired.phrases).or_default().entry(folder(&file.path)).or_default() += 1;
            }
        }
    }
    breaches.dedup();
    let total: usize = counts.values().flat_map(BTreeMap::values).sum();
    breaches.push(format!("\n{total} in all:"));
    breaches.extend(counts.iter().map(|(phrases, folders)| {
        let total: usize = folders.values().sum();
        let folders: Vec<String> = folders.iter().map(|(folder, count)| format!("{folder} {count}")).collect();
        format!("{total:5} {phrases}: {}", folders.join(", "))
    }));
    hold("Use the field's terms, which docs/glossary.md defines.", if counts.is_empty() { &[] } else { &breaches });
}

#[test]
fn words_are_found_in_text_and_in_names() {
    let text = words("fn put_off(KeyWord)\n// Put\n// off, DNSName's", 1);
    let parts: Vec<(&str, usize)> = text.iter().map(|word| (word.text.as_str(), word.line)).collect();
    let first = [("fn", 1), ("put", 1), ("off", 1), ("key", 1), ("word", 1)];
    let rest = [("put", 2), ("off", 3), ("dns", 3), ("name", 3), ("s", 3)];
    assert_eq!(parts, [first, rest].concat());
    assert_eq!(find(&self::text("put off", ""), &text), [1, 2]);
    assert_eq!(find(&prose("put off", ""), &text), [2]);
    assert_eq!(find(&name("put off", ""), &text), [1]);
    let letter = self::text("letter", "").except(&["dead letter"]);
    assert_eq!(find(&letter, &words("a dead letter, a letter", 7)), [7]);
    let mut identifiers = Vec::new();
    names("/// A letter.\nfn letter() { put(off, \"letter\") }".parse().expect("Rust code"), &mut identifiers);
    assert_eq!(find(&letter, &identifiers), [2]);
    assert_eq!(find(&name("put off", ""), &identifiers), [0; 0]);
}
