//! What runs below a chain node beside its own process, as /proc shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// The process id and name of a living process that `node` has started, or that it left to its guard as an orphan.
/// `None` when there is none: then nothing but `node` itself runs below the guard.
///
/// # Errors
/// When /proc cannot be read.
pub fn beside_node(guard: u32, node: u32) -> io::Result<Option<(u32, String)>> {
    let mut children: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some((parent, name)) = living(&stat) {
            children.entry(parent).or_default().push((pid, name));
        }
    }
    let mut below = [node, guard].into_iter().flat_map(|parent| children.remove(&parent).unwrap_or_default());
    Ok(below.find(|(pid, _)| *pid != node))
}

/// Parent and name of a process that is no zombie. proc(5): "pid (comm) state ppid …"; comm may hold anything.
fn living(stat: &str) -> Option<(u32, String)> {
    let (before, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    let name = before.split_once('(')?.1.replace(char::is_control, " ");
    (!matches!(state, "Z" | "X" | "x")).then_some((parent, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read_whole_and_a_zombie_is_nothing() {
        assert_eq!(living("7 (a) b) (c) S 3 7 7"), Some((3, "a) b) (c".to_owned())));
        assert_eq!(living("7 (sh) Z 3 7 7"), None);
    }
}
