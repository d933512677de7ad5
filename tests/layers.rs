//! The floors that the head of src/lib.rs lists, held against what every file under src/ names: imports go strictly
//! downward, and the rooms of one floor import each other in no circle. The checker reads text, not a syntax tree; it
//! is itself tried on planted violations below.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Floor of the imports, what it may not import, why. The other bans are read from src/lib.rs.
const BANS: &[(&str, &str, &str)] = &[
    ("operator", "host::guard", "whoever asks or looks moves no fence"),
    ("operator", "host::guard_client", "whoever asks or looks moves no fence"),
    ("operator", "host::key_links", "whoever asks or looks moves no key"),
    ("operator", "host::effects", "whoever asks or looks moves no key"),
];

/// Floors whose rooms may still import each other in a circle.
const ROUND: &[&str] = &["core", "config", "coordinator", "cli"];

/// All that the guard's binary may reach, directly or through other rooms: it must stay small
/// enough to be read in one sitting and to fit its memory.
const GUARD_REACHES: &[&str] = &[
    "base::closed_memory",
    "base::ids",
    "base::realtime",
    "base::time",
    "base::private_file",
    "base::guard_frame",
    "base::public_key",
    "host::key_links",
    "host::guard",
    "host::watchdog",
];

/// All that the signer's binary may reach, which has the key in its memory: no chain node, no other member, no runtime.
const SIGNER_REACHES: &[&str] = &[
    "base::closed_memory",
    "base::guard_frame",
    "base::ids",
    "base::private_file",
    "base::realtime",
    "base::signing",
    "base::time",
    "host::sign_bytes",
    "host::signer",
];

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

/// The house as the head of src/lib.rs tells it.
#[derive(Debug, Default)]
struct House {
    /// Lowest first.
    floors: Vec<String>,
    /// Pairs from "`host`: …; never imports `cluster`".
    never: BTreeSet<(String, String)>,
}

impl House {
    fn of(lib: &str) -> House {
        let mut house = House::default();
        for line in lib.lines().map_while(|line| line.strip_prefix("//!")) {
            let Some((floor, about)) = line.trim().strip_prefix("- `").and_then(|rest| rest.split_once("`:")) else {
                continue;
            };
            house.floors.push(floor.to_owned());
            let banned = about.split_once("never imports `").and_then(|(_, rest)| rest.split_once('`'));
            house.never.extend(banned.map(|(other, _)| (floor.to_owned(), other.to_owned())));
        }
        house
    }

    fn real() -> House {
        House::of(include_str!("../src/lib.rs"))
    }

    fn height(&self, floor: &str) -> Option<usize> {
        self.floors.iter().position(|name| name == floor)
    }
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

/// `host/chain/http.rs` → (`host`, `chain`); `core_handle.rs` → (`core_handle`, ""); `bin/baton.rs` → (`bin`, `baton`).
fn place_of(file: &Path) -> (String, String) {
    let text = file.with_extension("").to_string_lossy().into_owned();
    let mut parts = text.split('/').map(str::to_owned);
    let floor = parts.next().unwrap_or_default();
    (floor, parts.next().filter(|room| room != "mod").unwrap_or_default())
}

/// What one file imports: floors, and rooms as `floor::room`.
fn imports(file: &Path, source: &str, house: &House) -> BTreeSet<(String, String)> {
    let code = code_of(source);
    let root = if file.starts_with("bin") { "baton" } else { "crate" };
    let mut found = BTreeSet::new();
    for floor in names_below(&code, root) {
        let rooms = names_below(&code, &format!("{root}::{floor}"));
        found.extend(rooms.into_iter().map(|room| (floor.clone(), room)));
        found.insert((floor, String::new()));
    }
    let (floor, room) = place_of(file);
    let is_root_of_room = file.components().count() == 2 || file.ends_with("mod.rs") && file.components().count() == 3;
    if file.components().count() == 1 {
        let above = names_below(&code, "super").into_iter().filter(|name| house.height(name).is_some());
        found.extend(above.map(|name| (name, String::new())));
    } else if is_root_of_room && !room.is_empty() {
        found.extend(names_below(&code, "super").into_iter().map(|name| (floor.clone(), name)));
    }
    found
}

/// Every breach of the floors in one file, a line each.
fn breaches(file: &Path, source: &str, house: &House) -> Vec<String> {
    let (floor, _) = place_of(file);
    let shown = file.display();
    let height = if floor == "bin" { Some(house.floors.len()) } else { house.height(&floor) };
    let Some(height) = height.or((floor == "lib").then_some(usize::MAX)) else {
        return vec![format!("{shown}: {floor} is no floor in the head of src/lib.rs")];
    };
    let mut out = Vec::new();
    for (target, room) in imports(file, source, house) {
        let path = if room.is_empty() { target.clone() } else { format!("{target}::{room}") };
        let ban = BANS.iter().find(|(from, to, _)| *from == floor && *to == path);
        if let Some((_, _, why)) = ban {
            out.push(format!("{shown}: {floor} may not import {path}: {why}"));
        }
        if !room.is_empty() || target == floor {
            continue;
        }
        match house.height(&target) {
            _ if house.never.contains(&(floor.clone(), target.clone())) => {
                out.push(format!("{shown}: {floor} never imports {target}"));
            }
            Some(below) if below < height => {}
            Some(_) => out.push(format!("{shown}: {floor} imports {target}, which is above it")),
            None => out.push(format!("{shown}: {target} is no floor in the head of src/lib.rs")),
        }
    }
    let code = code_of(source);
    if places(&code, "super::super").next().is_some() {
        out.push(format!("{shown}: write crate:: instead of super::super, which hides the floor"));
    }
    if code.contains("crate::{") {
        out.push(format!("{shown}: write one use a path instead of crate::{{…}}, which hides the room"));
    }
    out.extend(impurities(&floor, source).into_iter().map(|word| format!("{shown}: the core mentions {word}")));
    out
}

/// Words that `core` may not mention; nothing for any other floor.
fn impurities(floor: &str, source: &str) -> Vec<&'static str> {
    if floor != "core" {
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

/// Which rooms import which, as `floor::room`.
fn rooms(sources: &[(PathBuf, String)], house: &House) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources {
        let (floor, room) = place_of(file);
        let from = format!("{floor}::{room}");
        let to = imports(file, text, house).into_iter().filter(|(_, room)| !room.is_empty());
        let to = to.map(|(floor, room)| format!("{floor}::{room}")).filter(|to| *to != from);
        graph.entry(from.clone()).or_default().extend(to);
    }
    graph
}

/// A room of each circle of rooms.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<&String> {
    graph.iter().filter(|(room, _)| reach_again(room, graph)).map(|(room, _)| room).collect()
}

fn reach_again(room: &str, graph: &BTreeMap<String, BTreeSet<String>>) -> bool {
    reach(room, graph).iter().any(|other| graph.get(other).is_some_and(|next| next.contains(room)))
}

#[test]
fn every_file_is_on_a_floor_and_imports_go_downward() {
    let house = House::real();
    let lib = code_of(include_str!("../src/lib.rs"));
    let modules = lib.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    let unlisted: Vec<&str> = modules.filter(|module| house.height(module).is_none()).collect();
    assert!(unlisted.is_empty(), "no floor in the head of src/lib.rs: {unlisted:?}");
    for pair in [("host", "cluster"), ("cluster", "host")] {
        assert!(house.never.contains(&(pair.0.to_owned(), pair.1.to_owned())), "{pair:?}: {:?}", house.never);
    }
    let found: Vec<String> = sources().iter().flat_map(|(file, text)| breaches(file, text, &house)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn rooms_of_one_floor_import_each_other_in_no_circle() {
    let graph = rooms(&sources(), &House::real());
    assert!(graph["host::effects"].contains("host::chain"), "{graph:?}");
    let round = |room: &str| ROUND.iter().any(|floor| room.starts_with(&format!("{floor}::")));
    let found: Vec<&String> = circles(&graph).into_iter().filter(|room| !round(room)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_guard_reaches_ten_rooms_and_no_more() {
    let graph = rooms(&sources(), &House::real());
    assert!(graph.contains_key("bin::baton-guard"), "the guard's binary was not found");
    let reached = reach("bin::baton-guard", &graph);
    assert!(reached.contains("host::guard"), "{reached:?}");
    let more: Vec<&String> = reached.iter().filter(|room| !GUARD_REACHES.contains(&room.as_str())).collect();
    assert!(more.is_empty(), "the guard also reaches {more:?}");
}

#[test]
fn the_signer_reaches_nine_rooms_and_no_more() {
    let graph = rooms(&sources(), &House::real());
    assert!(graph.contains_key("bin::baton-signer"), "the signer's binary was not found");
    let reached = reach("bin::baton-signer", &graph);
    assert!(reached.contains("host::sign_bytes"), "{reached:?}");
    let more: Vec<&String> = reached.iter().filter(|room| !SIGNER_REACHES.contains(&room.as_str())).collect();
    assert!(more.is_empty(), "the signer also reaches {more:?}");
}

/// A head as in src/lib.rs, for the tests of the checker itself.
const PLANTED_HEAD: &str = "//! Floors, lowest first (`tests/layers.rs` enforces it):
//!
//! - `base`: words
//! - `core`: decides; pure
//! - `host`: this host; never imports `cluster`
//! - `cluster`: the others; never imports `host`
//! - `operator`: what people see
pub mod `nothing`;";

#[test]
fn the_floors_are_read_from_the_text_that_people_read() {
    let house = House::of(PLANTED_HEAD);
    assert_eq!(house.floors, ["base", "core", "host", "cluster", "operator"]);
    assert_eq!(house.never.len(), 2, "{house:?}");
}

#[test]
fn planted_breaches_are_found() {
    let house = House::of(PLANTED_HEAD);
    for (file, source, expected) in [
        ("base/ids.rs", "use crate::core::Core;", "base/ids.rs: base imports core, which is above it"),
        (
            "host/guard/child.rs",
            "fn f() { let x = 'a'; crate::operator::open(\"\") }",
            "host/guard/child.rs: host imports operator, which is above it",
        ),
        ("host/chain.rs", "use crate::cluster::wire;", "host/chain.rs: host never imports cluster"),
        ("cluster/wire.rs", "use crate :: host::{\n chain,\n};", "cluster/wire.rs: cluster never imports host"),
        (
            "operator/ask.rs",
            "use crate::host::{chain::Chain, key_links};",
            "operator/ask.rs: operator may not import host::key_links: whoever asks or looks moves no key",
        ),
        (
            "host/chain.rs",
            "use crate::{base::ids, core};",
            "host/chain.rs: write one use a path instead of crate::{…}, which hides the room",
        ),
        (
            "core/lease.rs",
            "use super::super::store;",
            "core/lease.rs: write crate:: instead of super::super, which hides the floor",
        ),
        ("core/lease.rs", "use std::{fmt, net::IpAddr};", "core/lease.rs: the core mentions std::net"),
        ("core/lease.rs", "let now = BootTime::now();", "core/lease.rs: the core mentions BootTime::now"),
        ("core/lease.rs", "#[tokio::test]", "core/lease.rs: the core mentions tokio"),
        ("core/lease.rs", "use std::time::{Duration, Instant};", "core/lease.rs: the core mentions Instant"),
        ("bin/baton.rs", "fn main() { baton::host::x() } struct S<'a>(&'a u8);", ""),
        ("new.rs", "", "new.rs: new is no floor in the head of src/lib.rs"),
        ("host/chain.rs", "use crate::nothing;", "host/chain.rs: nothing is no floor in the head of src/lib.rs"),
    ] {
        let found = breaches(Path::new(file), source, &house).join("\n");
        assert_eq!(found, expected, "in {source:?}");
    }
}

#[test]
fn comments_strings_and_the_own_floor_are_no_breach() {
    let house = House::of(PLANTED_HEAD);
    for (file, source) in [
        ("core/lease.rs", "//! Not `tokio`, not std::fs.\n/* Instant */ let instant = \"SystemTime \\\" openraft\";"),
        ("core/lease.rs", "use super::votes::Gate; use crate::core::roles; use crate::base::ids::NodeId;"),
        ("core/lease.rs", "let s = r#\"tracing \"quoted\" crate::store\"#; let r#type = '\\''; let q = '\"';"),
        ("base/timing.rs", "mod tests { use super::*; use super::Timing; }"),
        (
            "host/effects.rs",
            "use crate::host::{chain::{Health, KeyState}, key_links::KeyLinks}; subcrate::driver::x();",
        ),
    ] {
        assert_eq!(breaches(Path::new(file), source, &house), Vec::<String>::new(), "in {source:?}");
    }
}

#[test]
fn a_circle_of_rooms_and_a_reach_through_other_rooms_are_found() {
    let house = House::of(PLANTED_HEAD);
    let planted = [
        ("host/guard.rs", "use super::links::Links;"),
        ("host/links/mod.rs", "mod fs;"),
        ("host/links/fs.rs", "use crate::host::{words::Word, chain::Chain};"),
        ("host/chain.rs", "use crate::host::guard;"),
        ("host/words.rs", "use std::fmt;"),
        ("bin/guard.rs", "baton::host::guard::run()"),
    ];
    let sources = planted.map(|(file, text)| (PathBuf::from(file), text.to_owned()));
    let graph = rooms(&sources, &house);
    assert_eq!(circles(&graph), ["host::chain", "host::guard", "host::links"]);
    assert!(reach("bin::guard", &graph).contains("host::words"));
}
