//! Sibling modules do not use each other in a cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{File, parse, read};
use crate::{files, hold};

/// Siblings that still form a cycle. The list may only become shorter.
const KNOWN: &[&str] = &[];

/// The path of a module within its crate; the crate's root has none.
type Path = Vec<String>;

/// The modules of a crate, by the files in one folder.
pub struct Crate {
    folder: &'static str,
    name: &'static str,
    modules: BTreeMap<Path, File>,
}

/// A file, the child of a module that it belongs to, and a sibling of that child that it uses.
type Use<'a> = (&'a str, &'a str, String);

impl Crate {
    fn read(folder: &'static str, name: &'static str) -> Self {
        Self::of(folder, name, read(&[folder]))
    }

    fn of(folder: &'static str, name: &'static str, files: Vec<File>) -> Self {
        let modules = files.into_iter().map(|file| (module(folder, &file.path), file)).collect();
        Self { folder, name, modules }
    }

    /// Returns the modules directly below the root.
    pub fn top(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().filter(|path| path.len() == 1).map(|path| path[0].as_str())
    }

    /// Returns the module that a path written in `from` leads to. A name that a module imports leads to where it comes
    /// from, `imports_max` times.
    fn resolve(&self, from: &[String], path: &[String], imports_max: usize) -> Option<Path> {
        let (first, mut rest) = path.split_first()?;
        let mut at: Path = match first.as_str() {
            "crate" => Path::new(),
            "self" => from.to_vec(),
            "super" => from.split_last()?.1.to_vec(),
            first if self.modules.contains_key(&child(from, first)) => child(from, first),
            first if first == self.name => Path::new(),
            _ => return None,
        };
        while let Some((next, after)) = rest.split_first() {
            if next == "super" {
                at.pop();
            } else if self.modules.contains_key(&child(&at, next)) {
                at.push(next.clone());
            } else {
                let mut imports = self.modules.get(&at).into_iter().flat_map(|file| &file.imports);
                let import = imports.find(|import| import.len() > 1 && import.last() == Some(next));
                let origin = import.filter(|_| imports_max > 0);
                return origin.and_then(|origin| self.resolve(&at, origin, imports_max - 1)).or(Some(at));
            }
            rest = after;
        }
        Some(at)
    }

    /// Returns which children of `parent` use each other, by file.
    pub fn uses(&self, parent: &[String]) -> Vec<Use<'_>> {
        let mut uses = Vec::new();
        for (module, file) in &self.modules {
            let Some(user) = module.strip_prefix(parent).and_then(|below| below.first()) else { continue };
            let used: BTreeSet<String> = file
                .names
                .iter()
                .filter_map(|name| self.resolve(module, name, 3))
                .filter_map(|path| path.strip_prefix(parent)?.first().cloned())
                .filter(|used| used != user)
                .collect();
            uses.extend(used.into_iter().map(|used| (file.path.as_str(), user.as_str(), used)));
        }
        uses
    }

    /// Returns the cycles among the children of `parent`, each with the uses that form it.
    fn cycles(&self, parent: &[String]) -> Vec<(String, Vec<String>)> {
        let uses = self.uses(parent);
        let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, user, used) in &uses {
            below.entry(user).or_default().insert(used);
        }
        let reach: BTreeMap<&str, BTreeSet<&str>> =
            below.keys().map(|module| (*module, reached(&below, module))).collect();
        let mutual = |a: &str, b: &str| reach[a].contains(b) && reach.get(b).is_some_and(|reach| reach.contains(a));
        let cycles: BTreeSet<Vec<&str>> = reach
            .keys()
            .map(|a| reach.keys().copied().filter(|b| mutual(a, b)).collect::<Vec<_>>())
            .filter(|cycle| cycle.len() > 1)
            .collect();
        let folder = [&[self.folder.to_owned()], parent].concat().join("/");
        let within = |cycle: &[&str]| {
            let inside = uses.iter().filter(|(_, user, used)| cycle.contains(user) && cycle.contains(&used.as_str()));
            inside.map(|(path, _, used)| format!("  {path} uses {used}")).collect()
        };
        cycles.iter().map(|cycle| (format!("{folder}/{{{}}}", cycle.join(",")), within(cycle))).collect()
    }
}

/// Returns all that a module uses, directly and through others.
fn reached<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        next.extend(uses.get(module).into_iter().flatten().copied().filter(|used| reached.insert(used)));
    }
    reached
}

fn child(module: &[String], name: &str) -> Path {
    [module, &[name.to_owned()]].concat()
}

fn module(folder: &str, path: &str) -> Path {
    let below = path.strip_prefix(folder).and_then(|path| path.strip_suffix(".rs")).expect("a Rust file of the crate");
    below.split('/').filter(|part| !part.is_empty() && *part != "lib").map(str::to_owned).collect()
}

pub fn engine() -> Crate {
    Crate::read("src", "kafka_scheduler")
}

fn simulator() -> Crate {
    Crate::read("sim/src", "sim")
}

#[test]
fn sibling_modules_form_no_cycle() {
    let mut found = Vec::new();
    for of in [engine(), simulator()] {
        assert!(of.modules.contains_key(&Path::new()), "{} has no lib.rs", of.folder);
        found.extend(of.modules.keys().flat_map(|parent| of.cycles(parent)));
    }
    let mut breaches: Vec<String> = found
        .iter()
        .filter(|(cycle, _)| !KNOWN.contains(&cycle.as_str()))
        .map(|(cycle, uses)| format!("{cycle}\n{}", uses.join("\n")))
        .collect();
    let gone = KNOWN.iter().filter(|known| found.iter().all(|(cycle, _)| cycle != *known));
    breaches.extend(gone.map(|known| format!("{known} is no cycle now: remove it from KNOWN")));
    hold(
        "Sibling modules, with all below them, do not use each other in a cycle. Move what both need into a module \
         below them.",
        &breaches,
    );
}

#[test]
fn the_oracle_does_not_use_the_world() {
    let simulator = simulator();
    let known = KNOWN.iter().any(|known| {
        let siblings = known.strip_prefix("sim/src/{").and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        ["oracle", "world"].iter().all(|module| siblings.split(',').any(|sibling| sibling == *module))
    });
    let uses = simulator.uses(&[]);
    assert!(uses.iter().any(|(_, user, _)| *user == "oracle"), "the oracle was not read");
    let breaches: Vec<String> = uses
        .iter()
        .filter(|(_, user, used)| *user == "oracle" && used == "world" && !known)
        .map(|(path, _, used)| format!("{path} uses {used}"))
        .collect();
    hold("The oracle judges by the history alone. Let the world write down what the oracle needs.", &breaches);
}

#[test]
fn cycles_are_found_by_every_way_to_write_a_path() {
    let found = |texts: &[(&str, &str)]| {
        let file =
            |(name, text): &(&str, &str)| parse(files::File { path: format!("x/{name}.rs"), text: (*text).to_owned() });
        let of = Crate::of("x", "x", texts.iter().map(file).collect());
        let cycles = of.modules.keys().flat_map(|parent| of.cycles(parent));
        cycles.map(|(cycle, _)| cycle).collect::<Vec<_>>()
    };
    let lib = ("lib", "mod a; mod b; mod c; pub use c::C;");
    assert_eq!(
        found(&[lib, ("a", "use super::b::B;"), ("b", "fn f(_: crate::C) {}"), ("c", "pub struct C;")]),
        [""; 0]
    );
    // Through a name that the parent imports, and in a macro.
    let c = ("c", "fn f() { print!(\"{}\", x::a::A) }");
    assert_eq!(found(&[lib, ("a", "use super::b::B;"), ("b", "fn f(_: crate::C) {}"), c]), ["x/{a,b,c}"]);
    // A parent and its child use each other freely; with all below it, the child is one of its siblings.
    let child = ("a/d", "use super::A; use super::super::b::{self, B};");
    assert_eq!(found(&[lib, ("a", "mod d; use d::D;"), child, ("b", "")]), [""; 0]);
    assert_eq!(found(&[lib, ("a", "mod d; use d::D;"), child, ("b", "use crate::a;")]), ["x/{a,b}"]);
    // Tests may use anything.
    let tests = ("b", "#[cfg(test)] mod tests { use crate::a; }");
    assert_eq!(found(&[lib, ("a", "use crate::b::B;"), tests]), [""; 0]);
}
