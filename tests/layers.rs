//! The layers that the head of src/lib.rs lists, held against what every file under src/ names:
//! imports go strictly downward, and modules of one layer do not import each other. The checker reads
//! text, not a syntax tree; it is itself tried on planted violations below.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From, to, why this one import may go against the rule.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("bin/baton", "cli", "the binary is one call into the command line, which is a module so that it can be tested")];

/// All that the guard's binary may reach, directly or through other modules: it must stay small
/// enough to be read in one sitting and to fit its memory.
const GUARD_REACHES: &[&str] =
    &["ids", "realtime", "time", "private_file", "guard_frame", "public_key", "key_links", "guard"];

/// What the pure core may not mention.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "openraft",
    "tracing",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "BootTime::now",
    "WallTime::now",
];

/// Layer of each module, from the words "L3 `wire`, `store`; L4 …" in the head of lib.rs.
fn layers(lib: &str) -> BTreeMap<String, u32> {
    let head: String = lib.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let mut layers = BTreeMap::new();
    let mut layer = None;
    for (index, part) in head.split('`').enumerate() {
        if index % 2 == 1 {
            if let Some(layer) = layer {
                layers.insert(part.to_owned(), layer);
            }
        } else if let Some(word) = part.split(|c: char| !c.is_alphanumeric()).rfind(|word| is_layer(word)) {
            layer = word[1..].parse().ok();
        }
    }
    layers
}

fn is_layer(word: &str) -> bool {
    word.len() > 1 && word.starts_with('L') && word[1..].chars().all(|c| c.is_ascii_digit())
}

/// `source` without comments, and with string and character literals emptied.
fn code_of(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_string(rest).unwrap_or(0)
        } else if c == '"' {
            quoted(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        let step = if skipped > 0 { skipped } else { c.len_utf8() };
        out.push_str(if skipped > 0 { " " } else { &rest[..step] });
        rest = &rest[step..];
    }
    out
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// Zero for a lifetime, which has no closing quote.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    let end = match chars.next() {
        Some((_, '\\')) => text[3.min(text.len())..].find('\'').map(|at| at + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1),
        None => None,
    };
    end.unwrap_or(0)
}

/// `None` for a raw identifier such as `r#type`.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&close).map_or(text.len(), |at| 2 + hashes + at + close.len()))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code` with no letter on either side.
fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back().is_none_or(|c| !is_word(c));
        before && code[at + word.len()..].chars().next().is_none_or(|c| !is_word(c))
    })
}

/// The names that follow each `root::` in `code`, groups opened: `root::{a, b::c}` has a and b.
fn names_below(code: &str, root: &str) -> BTreeSet<String> {
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::").replace(":: ", "::");
    let mut names = BTreeSet::new();
    for at in places(&code, root) {
        let Some(rest) = code[at + root.len()..].strip_prefix("::") else { continue };
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.extend(head(rest)),
        }
    }
    names
}

/// First names of the members of a `{…}` whose opening brace is already gone.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(head(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(head(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let name: String = path.trim().trim_start_matches("r#").chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

/// `core/lease.rs` → `core`; `bin/baton.rs` → `bin/baton`; `None` for lib.rs, which names them all.
fn module_of(file: &Path) -> Option<String> {
    let text = file.with_extension("").to_string_lossy().into_owned();
    match text.split_once('/') {
        _ if text == "lib" => None,
        Some(("bin", _)) => Some(text),
        Some((folder, _)) => Some(folder.to_owned()),
        None => Some(text),
    }
}

/// The top modules that one file imports.
fn imports(file: &Path, source: &str, layers: &BTreeMap<String, u32>) -> BTreeSet<String> {
    let code = code_of(source);
    let in_bin = file.starts_with("bin");
    let mut found = names_below(&code, if in_bin { "baton" } else { "crate" });
    // Ways around `crate::`: from a file that lies at the root, `super` is the root.
    if file.components().count() == 1 {
        found.extend(names_below(&code, "super").into_iter().filter(|name| layers.contains_key(name)));
    }
    found
}

/// Every breach of the layers in one file, a line each.
fn breaches(file: &Path, source: &str, layers: &BTreeMap<String, u32>) -> Vec<String> {
    let Some(module) = module_of(file) else { return Vec::new() };
    let shown = file.display();
    let top = layers.values().max().copied().unwrap_or_default();
    let layer = if module.starts_with("bin/") { Some(top) } else { layers.get(&module).copied() };
    let Some(layer) = layer else {
        return vec![format!("{shown}: {module} has no layer in the head of src/lib.rs")];
    };
    let mut out = Vec::new();
    for target in imports(file, source, layers).into_iter().filter(|target| *target != module) {
        if EXCEPTIONS.iter().any(|(from, to, _)| *from == module && *to == target) {
            continue;
        }
        match layers.get(&target) {
            Some(below) if *below < layer => {}
            Some(other) => out.push(format!("{shown}: {module} (L{layer}) imports {target} (L{other})")),
            None => out.push(format!("{shown}: {target} has no layer in the head of src/lib.rs")),
        }
    }
    if places(&code_of(source), "super::super").next().is_some() {
        out.push(format!("{shown}: write crate:: instead of super::super, which hides the layer"));
    }
    out.extend(impurities(&module, source).into_iter().map(|word| format!("{shown}: the core mentions {word}")));
    out
}

/// Words that `core` may not mention; nothing for any other module.
fn impurities(module: &str, source: &str) -> Vec<&'static str> {
    if module != "core" {
        return Vec::new();
    }
    let code = code_of(source);
    let mentions = |word: &str| {
        let grouped = word.split_once("::").is_some_and(|(root, name)| names_below(&code, root).contains(name));
        grouped || places(&code, word).next().is_some()
    };
    NOT_IN_CORE.iter().copied().filter(|word| mentions(word)).collect()
}

/// All that `start` reaches through `graph`, without itself.
fn reach(start: &str, graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start.to_owned()]);
    while let Some(module) = open.pop() {
        for next in graph.get(&module).into_iter().flatten() {
            if next != start && seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut open) = (Vec::new(), vec![root.clone()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("src/ is readable") {
            let path = entry.expect("an entry of src/").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(&root).expect("below src/").to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn real_layers() -> BTreeMap<String, u32> {
    layers(include_str!("../src/lib.rs"))
}

#[test]
fn every_module_has_a_layer_and_imports_go_downward() {
    let layers = real_layers();
    let lib = code_of(include_str!("../src/lib.rs"));
    let modules = lib.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    let unlisted: Vec<&str> = modules.filter(|module| !layers.contains_key(*module)).collect();
    assert!(unlisted.is_empty(), "without a layer in the head of src/lib.rs: {unlisted:?}");
    let found: Vec<String> = sources().iter().flat_map(|(file, text)| breaches(file, text, &layers)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_guard_reaches_eight_modules_and_no_more() {
    let layers = real_layers();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources() {
        if let Some(module) = module_of(&file) {
            graph.entry(module).or_default().extend(imports(&file, &text, &layers));
        }
    }
    assert!(graph.contains_key("bin/baton-guard"), "the guard's binary was not found");
    let reached = reach("bin/baton-guard", &graph);
    let more: Vec<&String> = reached.iter().filter(|module| !GUARD_REACHES.contains(&module.as_str())).collect();
    assert!(more.is_empty(), "the guard also reaches {more:?}");
}

#[test]
fn every_exception_is_still_needed() {
    let layers = real_layers();
    for (from, to, why) in EXCEPTIONS {
        let used = sources().iter().any(|(file, text)| {
            module_of(file).is_some_and(|module| module == *from) && imports(file, text, &layers).contains(*to)
        });
        assert!(used, "{from} no longer imports {to} ({why}); drop the exception");
    }
}

/// A head as in src/lib.rs, for the tests of the checker itself.
const PLANTED_HEAD: &str = "//! Layers, lowest first (`tests/layers.rs` enforces it):
//! L0 `ids`, `time`; L1 `timing`, `guard_frame`; L2 `core` (pure);
//! L3 `wire`, `store`, `key_links`, `guard`, `chain`; L4
//! `effects`; L5 `driver`; L6 the binaries and `cli`.
pub mod `nothing`;";

#[test]
fn the_layers_are_read_from_the_text_that_people_read() {
    let layers = layers(PLANTED_HEAD);
    for (module, layer) in
        [("ids", 0), ("time", 0), ("timing", 1), ("core", 2), ("store", 3), ("effects", 4), ("cli", 6)]
    {
        assert_eq!(layers.get(module), Some(&layer), "{module} in {layers:?}");
    }
    assert_eq!(layers.len(), 13, "{layers:?}");
}

#[test]
fn planted_breaches_are_found() {
    let layers = layers(PLANTED_HEAD);
    for (file, source, expected) in [
        ("store.rs", "use crate::driver::run;", "store.rs: store (L3) imports driver (L5)"),
        (
            "store.rs",
            "pub use crate :: {\n ids::{Epoch, Term},\n wire as w,\n};",
            "store.rs: store (L3) imports wire (L3)",
        ),
        (
            "guard/child.rs",
            "fn f() { let x = 'a'; crate::store::open(\"\") }",
            "guard/child.rs: guard (L3) imports store (L3)",
        ),
        ("timing.rs", "use super::guard_frame::Armed;", "timing.rs: timing (L1) imports guard_frame (L1)"),
        ("ids.rs", "use super::{time::BootTime};", "ids.rs: ids (L0) imports time (L0)"),
        (
            "core/lease.rs",
            "use super::super::store;",
            "core/lease.rs: write crate:: instead of super::super, which hides the layer",
        ),
        ("core/lease.rs", "use std::{fmt, net::IpAddr};", "core/lease.rs: the core mentions std::net"),
        ("core/lease.rs", "let now = BootTime::now();", "core/lease.rs: the core mentions BootTime::now"),
        ("core/lease.rs", "#[tokio::test]", "core/lease.rs: the core mentions tokio"),
        ("core/lease.rs", "use std::time::{Duration, Instant};", "core/lease.rs: the core mentions Instant"),
        ("bin/baton.rs", "fn main() { baton::effects::x() } struct S<'a>(&'a u8);", ""),
        ("new.rs", "", "new.rs: new has no layer in the head of src/lib.rs"),
        ("store.rs", "use crate::nothing;", "store.rs: nothing has no layer in the head of src/lib.rs"),
    ] {
        let found = breaches(Path::new(file), source, &layers).join("\n");
        assert_eq!(found, expected, "in {source:?}");
    }
}

#[test]
fn comments_strings_and_ones_own_folder_are_no_breach() {
    let layers = layers(PLANTED_HEAD);
    for (file, source) in [
        ("core/lease.rs", "//! Not `tokio`, not std::fs.\n/* Instant */ let instant = \"SystemTime \\\" openraft\";"),
        ("core/lease.rs", "use super::votes::Gate; use crate::core::roles; use crate::{ids::NodeId, time::BootTime};"),
        ("core/lease.rs", "let s = r#\"tracing \"quoted\" crate::store\"#; let r#type = '\\''; let q = '\"';"),
        ("timing.rs", "mod tests { use super::*; use super::Timing; }"),
        ("effects.rs", "use crate::{chain::{Health, KeyState}, key_links::KeyLinks}; subcrate::driver::x();"),
    ] {
        assert_eq!(breaches(Path::new(file), source, &layers), Vec::<String>::new(), "in {source:?}");
    }
}

#[test]
fn the_guards_reach_goes_through_other_modules() {
    let graph = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|name| name.to_string()).collect());
    let planted =
        BTreeMap::from([graph("bin/g", &["guard"]), graph("guard", &["key_links"]), graph("key_links", &["store"])]);
    assert!(reach("bin/g", &planted).contains("store"));
}
