//! Parses Rust files, and checks the rules for their code.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::files;
use crate::hold;

/// The parts of a file that the rules check.
pub struct File {
    pub path: String,
    /// All paths outside of tests, imports included.
    pub names: Vec<Vec<String>>,
    /// The paths of imports.
    pub imports: Vec<Vec<String>>,
    /// Name, first line and number of lines of each function.
    pub functions: Vec<(String, usize, usize)>,
    lines: Vec<String>,
    unsafe_at: Vec<usize>,
    /// Line and message of each `unwrap` and `expect` outside of tests.
    unwraps: Vec<(usize, Option<String>)>,
    modules: Vec<String>,
}

impl File {
    /// Returns whether the file declares a module of this name.
    pub fn declares(&self, name: &str) -> bool {
        self.modules.iter().any(|module| module == name)
    }
}

/// Reads the Rust files below these folders.
pub fn read(folders: &[&str]) -> Vec<File> {
    files::rust(folders).into_iter().map(parse).collect()
}

pub fn parse(file: files::File) -> File {
    let parsed = syn::parse_file(&file.text).unwrap_or_else(|e| panic!("{}: {e}", file.path));
    let mut parts = File {
        path: file.path,
        names: Vec::new(),
        imports: Vec::new(),
        functions: Vec::new(),
        lines: file.text.lines().map(str::to_owned).collect(),
        unsafe_at: Vec::new(),
        unwraps: Vec::new(),
        modules: Vec::new(),
    };
    parts.visit_file(&parsed);
    parts
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let cfg_test =
        |a: &syn::Attribute| a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|i| i == "test");
    attributes.iter().any(|attribute| attribute.path().is_ident("test") || cfg_test(attribute))
}

fn line(span: Span) -> usize {
    span.start().line
}

impl File {
    fn function(&mut self, name: &syn::Ident, whole: Span) {
        let (first, last) = (line(whole), whole.end().line);
        self.functions.push((name.to_string(), first, last + 1 - first));
    }

    fn keyword(&mut self, keyword: Option<&syn::Token![unsafe]>) {
        self.unsafe_at.extend(keyword.map(|keyword| line(keyword.span)));
    }

    fn import(&mut self, before: &[String], tree: &syn::UseTree) {
        let mut path = before.to_vec();
        match tree {
            syn::UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.import(&path, &part.tree);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(before, tree)),
            syn::UseTree::Name(name) => path.push(name.ident.to_string()),
            syn::UseTree::Rename(name) => path.push(name.ident.to_string()),
            syn::UseTree::Glob(_) => path.push("*".to_owned()),
        }
        if !matches!(tree, syn::UseTree::Path(_) | syn::UseTree::Group(_)) {
            self.names.push(path.clone());
            self.imports.push(path);
        }
    }

    /// The input of a macro is not parsed: finds paths and calls by their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut called: Option<String> = None;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if ident == "unsafe" {
                        self.unsafe_at.push(line(ident.span()));
                    }
                    path.push(ident.to_string());
                    called = Some(ident.to_string());
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {}
                TokenTree::Group(group) => {
                    if let Some(called @ ("unwrap" | "expect")) = called.as_deref() {
                        let message = syn::parse2::<syn::LitStr>(group.stream()).ok().map(|text| text.value());
                        if called == "expect" || group.stream().is_empty() {
                            self.unwraps.push((line(group.span()), message));
                        }
                    }
                    self.names.extend(Some(std::mem::take(&mut path)).filter(|path| !path.is_empty()));
                    self.tokens(group.stream());
                    called = None;
                }
                _ => {
                    self.names.extend(Some(std::mem::take(&mut path)).filter(|path| !path.is_empty()));
                    called = None;
                }
            }
        }
        self.names.extend(Some(path).filter(|path| !path.is_empty()));
    }
}

impl<'a> Visit<'a> for File {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.modules.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.import(&[], &item.tree);
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig.ident, item.span());
        self.keyword(item.sig.unsafety.as_ref());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig.ident, item.span());
        self.keyword(item.sig.unsafety.as_ref());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.keyword(item.unsafety.as_ref());
        visit::visit_item_impl(self, item);
    }

    fn visit_expr_unsafe(&mut self, expression: &'a syn::ExprUnsafe) {
        self.keyword(Some(&expression.unsafe_token));
        visit::visit_expr_unsafe(self, expression);
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        let message = match call.args.first() {
            Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) => Some(text.value()),
            _ => None,
        };
        if (call.method == "unwrap" && call.args.is_empty()) || (call.method == "expect" && call.args.len() == 1) {
            self.unwraps.push((line(call.method.span()), message));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.names.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}

#[test]
fn unsafe_code_is_in_one_module() {
    const HERE: [&str; 2] = ["src/kafka/ffi.rs", "src/kafka/ffi/"];
    let files = read(&["src", "sim/src"]);
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| HERE.iter().any(|here| file.path.starts_with(here)));
    assert!(here.iter().all(|file| !file.unsafe_at.is_empty()) && !here.is_empty(), "{HERE:?} have no unsafe code");
    let breaches: Vec<String> =
        elsewhere.iter().flat_map(|file| file.unsafe_at.iter().map(|line| format!("{}:{line}", file.path))).collect();
    hold("Unsafe code is only in src/kafka/ffi. Move it there, with a SAFETY comment.", &breaches);
}

#[test]
fn the_core_and_the_simulator_are_deterministic() {
    // The same inputs must give the same outputs, in every process.
    const BANNED: &[&str] =
        &["Instant", "SystemTime", "HashMap", "HashSet", "RandomState", "thread", "env", "getrandom"];
    // They show progress in seconds, and start processes and threads that each play alone.
    const COMMAND: &[&str] = &["sim/src/main.rs", "sim/src/swarm.rs"];
    let mut breaches = Vec::new();
    for file in read(&["src/core", "src/core.rs", "sim/src"]) {
        if COMMAND.contains(&file.path.as_str()) {
            continue;
        }
        for name in &file.names {
            // A lower-case name alone is a variable or a method.
            let banned = |part: &&String| {
                BANNED.contains(&part.as_str()) && (name.len() > 1 || part.starts_with(char::is_uppercase))
            };
            breaches.extend(name.iter().find(banned).map(|_| format!("{}: {}", file.path, name.join("::"))));
        }
    }
    breaches.dedup();
    hold(
        "No clock, no randomness and no random order in src/core and sim: pass the time in, take randomness from the \
         seed, and use BTreeMap and BTreeSet.",
        &breaches,
    );
}

#[test]
fn unwrap_and_expect_give_a_reason() {
    let mut breaches = Vec::new();
    for file in read(&["src"]) {
        for (line, message) in &file.unwraps {
            let at = line - 1;
            let comment = |line: &String| line.contains("// ") || line.trim_start().starts_with("//");
            let beside = file.lines[at.saturating_sub(3)..=at].iter().any(comment);
            let said = message.as_ref().is_some_and(|message| message.split_whitespace().count() >= 2);
            if !beside && !said {
                breaches.push(format!("{}:{line}: {}", file.path, file.lines[at].trim()));
            }
        }
    }
    hold(
        "unwrap and expect are only used if they cannot fail, and give the reason in the message or in a comment above. \
         Return an error otherwise.",
        &breaches,
    );
}
