//! Reads docs/security.md, so the tests use its commands.

use std::path::Path;

/// A permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `--topic`, `--group` or `--transactional-id`
    pub on: String,
    /// The resource, by the guide's names.
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

/// Returns the first fenced block of this language that contains a text.
pub fn block(language: &str, containing: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = std::fs::read_to_string(&path).expect("docs/security.md");
    let open = format!("```{language}\n");
    let blocks = text.split(open.as_str()).skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains(containing));
    block.unwrap_or_else(|| panic!("no {language} with {containing} in docs/security.md")).to_owned()
}

/// Returns the arguments of the commands that grant the engine its permissions, without bootstrap server and command
/// configuration.
pub fn commands() -> Vec<Vec<String>> {
    let text = block("sh", "--allow-principal User:scheduler").replace("\\\n", " ");
    let command = |line: &str| -> Option<Vec<String>> {
        let mut arguments = line.split_whitespace().map(str::to_owned);
        assert_eq!(arguments.next()?, "kafka-acls.sh", "{line}");
        let arguments: Vec<String> = arguments.collect();
        let elsewhere = |argument: &String| argument == "--bootstrap-server" || argument == "--command-config";
        let skipped = |n: usize| elsewhere(&arguments[n]) || (n > 0 && elsewhere(&arguments[n - 1]));
        Some((0..arguments.len()).filter(|n| !skipped(*n)).map(|n| arguments[n].clone()).collect())
    };
    text.lines().filter_map(command).collect()
}

/// Returns the single permissions that these commands grant.
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
