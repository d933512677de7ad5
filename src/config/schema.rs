//! Every key that a configuration may hold: the one list behind unknown-key errors, environment
//! variables and the examples in errors. What a value means is said where it is read (`sections.rs`).

/// One key. In `path`, `[]` stands for any element of a list of tables.
pub(super) struct Key {
    pub path: &'static str,
    /// Whether one environment variable can say it: neither a list nor a table.
    pub scalar: bool,
    /// How the line looks in the file.
    pub example: &'static str,
}

const fn scalar(path: &'static str, example: &'static str) -> Key {
    Key { path, scalar: true, example }
}

const fn compound(path: &'static str, example: &'static str) -> Key {
    Key { path, scalar: false, example }
}

pub(super) const KEYS: &[Key] = &[
    scalar("member.id", r#"id = "host-a""#),
    scalar("member.state_dir", r#"state_dir = "/var/lib/baton""#),
    scalar("member.run_dir", r#"run_dir = "/run/baton""#),
    scalar("member.join", "join = true"),
    scalar("cluster.name", r#"name = "my-validator""#),
    scalar("cluster.listen", r#"listen = "0.0.0.0:7401""#),
    scalar("cluster.failback", "failback = false"),
    compound("cluster.members[].id", r#"id = "host-a""#),
    compound("cluster.members[].addr", r#"addr = "10.0.0.1:7401""#),
    compound("cluster.members[].role", r#"role = "validator""#),
    compound("cluster.members[].priority", "priority = 100"),
    scalar("timing.profile", r#"profile = "lan""#),
    scalar("timing.heartbeat", r#"heartbeat = "150ms""#),
    scalar("timing.lease", r#"lease = "1s""#),
    scalar("timing.kill_max", r#"kill_max = "150ms""#),
    scalar("timing.drift_ppm", "drift_ppm = 1000"),
    scalar("tls.ca", r#"ca = "ca.pem""#),
    scalar("tls.cert", r#"cert = "host-a.pem""#),
    scalar("tls.key", r#"key = "host-a.key""#),
    scalar("tls.insecure", "insecure = false"),
    scalar("chain.driver", r#"driver = "near""#),
    scalar("chain.home", r#"home = "/var/lib/near""#),
    compound("chain.command", r#"command = ["neard", "--home", "/var/lib/near", "run"]"#),
    compound("chain.env", r#"env = { RUST_LOG = "info" }"#),
    scalar("chain.log", r#"log = "/var/log/near.log""#),
    scalar("chain.log_max_mib", "log_max_mib = 64"),
    scalar("chain.log_kept", "log_kept = 4"),
    scalar("chain.stop_timeout", r#"stop_timeout = "30s""#),
    scalar("chain.clock_skew", r#"clock_skew = "200ms""#),
    scalar("chain.on_halt", r#"on_halt = "wait""#),
    scalar("chain.halt_after", r#"halt_after = "30s""#),
    scalar("chain.keys_on_tmpfs", "keys_on_tmpfs = false"),
    compound("chain.links[].link", r#"link = "validator_key.json""#),
    compound("chain.links[].validating", r#"validating = "/etc/baton/keys/validator_key.json""#),
    compound("chain.links[].standby", r#"standby = "/etc/baton/keys/voter_node_key.json""#),
    scalar("chain.activate.how", r#"how = "restart""#),
    scalar("chain.activate.signal", r#"signal = "SIGHUP""#),
    compound("chain.activate.activate", r#"activate = ["/usr/local/bin/become-validator"]"#),
    compound("chain.activate.deactivate", r#"deactivate = ["/usr/local/bin/become-standby"]"#),
    scalar("chain.probe.url", r#"url = "http://127.0.0.1:3030/status""#),
    compound("chain.probe.calls[].method", r#"method = "eth_syncing""#),
    compound("chain.probe.calls[].params", "params = []"),
    compound("chain.probe.exec", r#"exec = ["/usr/local/bin/is-synced"]"#),
    scalar("chain.probe.tcp", r#"tcp = "127.0.0.1:3030""#),
    scalar("chain.probe.every", r#"every = "1s""#),
    scalar("chain.probe.timeout", r#"timeout = "1s""#),
    scalar("chain.probe.failures", "failures = 3"),
    scalar("chain.probe.min_peers", "min_peers = 3"),
    scalar("chain.probe.syncing", r#"syncing = "/sync_info/syncing""#),
    scalar("chain.probe.height", r#"height = "/sync_info/latest_block_height""#),
    scalar("chain.probe.target_height", r#"target_height = "/highest""#),
    scalar("chain.probe.behind_max", "behind_max = 1"),
    scalar("chain.probe.head_time", r#"head_time = "/sync_info/latest_block_time""#),
    scalar("chain.probe.peers", r#"peers = "/peers""#),
    scalar("chain.probe.key", r#"key = "/validator_public_key""#),
    scalar("chain.probe.key_validating", r#"key_validating = "THE SHARED PUBLIC KEY""#),
    scalar("chain.probe.key_standby", r#"key_standby = "THIS HOST'S OWN PUBLIC KEY""#),
    scalar("chain.probe.version", r#"version = "/version/version""#),
    scalar("chain.last_signed.file", r#"file = "/var/lib/node/last_signed.json""#),
    scalar("chain.last_signed.height", r#"height = "/height""#),
    scalar("chain.last_signed.round", r#"round = "/round""#),
    scalar("chain.last_signed.step", r#"step = "/step""#),
    scalar("chain.near.validating_addr", r#"validating_addr = "0.0.0.0:24567""#),
    scalar("chain.near.standby_addr", r#"standby_addr = "0.0.0.0:24568""#),
    scalar("metrics.listen", r#"listen = "127.0.0.1:2233""#),
];

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
