//! What the list of keys (`key_list.rs`) says of a path: what stands there, which variable it has, and what somebody
//! may have meant who wrote another.

use super::key_list::{KEYS, Key};

/// What stands at a path.
pub(super) enum Shape {
    Value,
    Table,
    ListOfTables,
}

/// `None` when no key has this path or lies below it.
pub(super) fn shape(path: &str) -> Option<Shape> {
    let (table, list) = (format!("{path}."), format!("{path}[]."));
    KEYS.iter().find_map(|key| match key.path {
        p if p == path => Some(Shape::Value),
        p if p.starts_with(&table) => Some(Shape::Table),
        p if p.starts_with(&list) => Some(Shape::ListOfTables),
        _ => None,
    })
}

/// The key at `path`, in which list elements may be numbered.
pub(super) fn key(path: &str) -> Option<&'static Key> {
    let general = general(path);
    KEYS.iter().find(|key| key.path == general)
}

/// `cluster.members[3].id` → `cluster.members[].id`.
pub(super) fn general(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = (inside || c == '[') && c != ']';
        if !inside || c == '[' {
            out.push(c);
        }
    }
    out
}

/// `timing.lease` → `BATON_TIMING_LEASE`.
pub(super) fn variable(path: &str) -> String {
    format!("BATON_{}", path.replace("[]", "").replace('.', "_").to_uppercase())
}

/// The first part of a path: `timing.lease` → `timing`.
pub(super) fn section(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// The names that may stand directly below `table` (empty: the sections).
pub(super) fn children(table: &str) -> Vec<&'static str> {
    let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
    let mut names: Vec<&'static str> = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(prefix.as_str()))
        .map(|rest| section(rest).trim_end_matches("[]"))
        .collect();
    names.dedup();
    names
}

/// What the writer of an unknown key may have meant.
pub(super) fn hint(table: &str, name: &str) -> String {
    let known = children(&general(table));
    let join = |name: &str| if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!("did you mean {}?", join(near));
    }
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    if let Some(key) = KEYS.iter().find(|key| last(key.path) == name) {
        return format!("did you mean {}?", key.path);
    }
    let place = if table.is_empty() { "the sections" } else { table };
    let verb = if table.is_empty() { "are" } else { "has" };
    format!("{place} {verb} {}", known.join(", "))
}

/// The name most like `name`, when any is like it at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut names: Vec<String> = KEYS.iter().map(|key| variable(key.path)).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn numbered_elements_find_their_key() {
        assert_eq!(key("cluster.members[12].addr").map(|key| key.path), Some("cluster.members[].addr"));
        assert_eq!(general("a[0].b[1].c"), "a[].b[].c");
    }
}
