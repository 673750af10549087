//! Reads docs/security.md, so the tests do what it says.

use std::path::Path;

/// A permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `--topic`, `--group` or `--transactional-id`
    pub on: String,
    /// Of that, by the guide's names.
    pub name: String,
    pub operation: String,
    pub prefixed: bool,
}

impl Grant {
    pub fn new(operation: &str, on: &str, name: &str) -> Self {
        let prefixed = on == "--transactional-id";
        Self { on: on.to_owned(), name: name.to_owned(), operation: operation.to_owned(), prefixed }
    }
}

/// The first fenced block of that language which contains a text.
pub fn block(language: &str, containing: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = std::fs::read_to_string(&path).expect("docs/security.md");
    let open = format!("```{language}\n");
    let blocks = text.split(open.as_str()).skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains(containing));
    block.unwrap_or_else(|| panic!("no {language} with {containing} in docs/security.md")).to_owned()
}

/// The commands that grant the engine what it needs: their arguments, without those that say where to and by whom.
pub fn commands() -> Vec<Vec<String>> {
    let text = block("sh", "--allow-principal User:scheduler").replace("\\\n", " ");
    let command = |line: &str| -> Option<Vec<String>> {
        let mut words = line.split_whitespace().map(str::to_owned);
        assert_eq!(words.next()?, "kafka-acls.sh", "{line}");
        let words: Vec<String> = words.collect();
        let elsewhere = |word: &String| word == "--bootstrap-server" || word == "--command-config";
        let skipped = |n: usize| elsewhere(&words[n]) || (n > 0 && elsewhere(&words[n - 1]));
        Some((0..words.len()).filter(|n| !skipped(*n)).map(|n| words[n].clone()).collect())
    };
    text.lines().filter_map(command).collect()
}

/// Each single permission that these commands grant.
pub fn grants() -> Vec<Grant> {
    let mut grants = Vec::new();
    for command in commands() {
        let values = |name: &str| -> Vec<&String> {
            let pairs = command.windows(2).filter(|pair| pair[0] == name);
            pairs.map(|pair| &pair[1]).collect()
        };
        let prefixed = values("--resource-pattern-type").iter().any(|kind| *kind == "prefixed");
        for on in ["--topic", "--group", "--transactional-id"] {
            for name in values(on) {
                for operation in values("--operation") {
                    grants.push(Grant { on: on.into(), name: name.clone(), operation: operation.clone(), prefixed });
                }
            }
        }
    }
    grants
}
