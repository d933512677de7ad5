//! Every key that a configuration may hold: the one list behind unknown-key errors, environment variables, the examples
//! in errors and the comments of a file that `baton init` writes. What a value means is decided where it is read
//! (`sections.rs`); that what is said here is so, the tests of docs/configuration.md and of `baton init` see to.

/// One key. In `path`, `[]` stands for any element of a list of tables.
pub struct Key {
    pub path: &'static str,
    /// Whether one environment variable can say it: neither a list nor a table.
    pub scalar: bool,
    /// How the line looks in the file.
    pub example: &'static str,
    pub absent: Absent,
    /// What it is for, in one line that ends without a stop.
    pub says: &'static str,
}

/// What is so when a key is not there.
pub enum Absent {
    /// It is missed, when its section is there.
    Refused,
    /// As if it said what its example says; for a few keys that depends on others, and this is the usual case.
    AsExample,
    /// In words.
    So(&'static str),
}

impl Key {
    /// The value in the example.
    pub fn example_value(&self) -> &'static str {
        self.example.split_once(" = ").map_or("", |(_, value)| value)
    }

    const fn compound(self) -> Key {
        Key { scalar: false, ..self }
    }
}

const fn required(path: &'static str, example: &'static str, says: &'static str) -> Key {
    Key { path, scalar: true, example, absent: Absent::Refused, says }
}

const fn default(path: &'static str, example: &'static str, says: &'static str) -> Key {
    Key { path, scalar: true, example, absent: Absent::AsExample, says }
}

const fn optional(path: &'static str, example: &'static str, absent: &'static str, says: &'static str) -> Key {
    Key { path, scalar: true, example, absent: Absent::So(absent), says }
}

pub const KEYS: &[Key] = &[
    required("member.id", r#"id = "host-a""#, "Who this host is: one of cluster.members"),
    required(
        "member.state_dir",
        r#"state_dir = "/var/lib/baton""#,
        "The store: votes, log, identity; on a disk that survives a power loss",
    ),
    required("member.run_dir", r#"run_dir = "/run/baton""#, "Sockets of baton-guard and of `baton status`"),
    default(
        "member.disk_timeout",
        r#"disk_timeout = "5s""#,
        "A disk that does not answer for longer hangs, and its host gives the baton up",
    ),
    default(
        "member.record_mib",
        "record_mib = 64",
        "MiB of what the coordinator was told and decided, for `baton replay`; 0 keeps nothing",
    ),
    default(
        "member.snapshot_every",
        "snapshot_every = 500",
        "Entries of the log between two snapshots; those before them are removed. For tests",
    ),
    default("member.join", "join = false", "Never form a cluster: with an empty store, wait for `baton member add`"),
    required("cluster.name", r#"name = "my-validator""#, "Members of another name are refused"),
    required("cluster.listen", r#"listen = "0.0.0.0:7401""#, "IP:PORT where this member waits for the others"),
    default("cluster.failback", "failback = false", "A returning preferred member takes the baton back, by handover"),
    required("cluster.members[].id", r#"id = "host-a""#, "The member").compound(),
    required("cluster.members[].addr", r#"addr = "10.0.0.1:7401""#, "HOST:PORT where the others reach it").compound(),
    default(
        "cluster.members[].role",
        r#"role = "validator""#,
        r#""validator", or "arbiter", which votes and runs no chain node"#,
    )
    .compound(),
    default("cluster.members[].priority", "priority = 100", "Higher is preferred, 0 to 1000000").compound(),
    default(
        "timing.profile",
        r#"profile = "lan""#,
        r#""lan", "wan" for members far apart, "fast" with real-time priority, "signer" for that custody"#,
    ),
    default("timing.heartbeat", r#"heartbeat = "150ms""#, "The leader's pace"),
    default("timing.lease", r#"lease = "1s""#, "How long a quorum's acknowledgement lets the holder sign"),
    default("timing.kill_max", r#"kill_max = "150ms""#, "Longest time the guard takes to kill the chain node"),
    default("timing.drift_ppm", "drift_ppm = 1000", "Assumed error of a host's clock rate, in parts per million"),
    optional(
        "timing.older_members_lease",
        r#"older_members_lease = "1s""#,
        "their answers make no lease",
        "The lease of members of an earlier version, at least",
    ),
    required("tls.ca", r#"ca = "ca.pem""#, "Who signs the members' certificates"),
    required("tls.cert", r#"cert = "host-a.pem""#, "This member's certificate, which names member.id"),
    required("tls.key", r#"key = "host-a.key""#, "Its private key, closed to group and others"),
    default("tls.insecure", "insecure = false", "Do without TLS: WHOEVER REACHES THE PORT CAN SPEAK AS ANY MEMBER"),
    required("chain.driver", r#"driver = "near""#, r#"What kind of chain node it is: "near", "cometbft" or "generic""#),
    required("chain.home", r#"home = "/var/lib/near""#, "The node's home; links lie below it"),
    required(
        "chain.command",
        r#"command = ["neard", "--home", "/var/lib/near", "run"]"#,
        "The node's command line: the node itself, or a script that ends in exec",
    )
    .compound(),
    optional("chain.env", r#"env = { RUST_LOG = "info" }"#, "nothing", "Added to the node's environment").compound(),
    optional(
        "chain.log",
        r#"log = "/var/log/near.log""#,
        "where baton's own output goes",
        "The node's output is appended here",
    ),
    default("chain.log_max_mib", "log_max_mib = 64", "From how many MiB on that file's older part is set aside"),
    default("chain.log_kept", "log_kept = 4", "Older parts of that file that are kept"),
    default(
        "chain.custody",
        r#"custody = "links""#,
        r#"Who has the key: "links", the holder's chain node; "signer", none of them"#,
    ),
    default("chain.stop_timeout", r#"stop_timeout = "30s""#, "From SIGTERM to SIGKILL"),
    default(
        "chain.clock_skew",
        r#"clock_skew = "200ms""#,
        "Largest difference between this host's clock and a block header's",
    ),
    default(
        "chain.on_halt",
        r#"on_halt = "wait""#,
        r#"When the chain stands still: "wait", or "replica", which CAN SIGN A HEIGHT TWICE: docs/safety.md"#,
    ),
    default("chain.halt_after", r#"halt_after = "30s""#, "How long the head stands still before a mark is trusted"),
    default(
        "chain.keys_on_tmpfs",
        "keys_on_tmpfs = false",
        "Links lead through run_dir, a tmpfs, so that a reboot leaves no key",
    ),
    required(
        "chain.links[].link",
        r#"link = "validator_key.json""#,
        "The link, below chain.home; the first one is the validator key",
    )
    .compound(),
    required(
        "chain.links[].validating",
        r#"validating = "/etc/baton/keys/validator_key.json""#,
        "What it points to while this host holds the baton (chmod 600)",
    )
    .compound(),
    optional(
        "chain.links[].standby",
        r#"standby = "/etc/baton/keys/voter_node_key.json""#,
        "no link",
        "What it points to otherwise",
    )
    .compound(),
    default(
        "chain.activate.how",
        r#"how = "restart""#,
        r#"What makes the node take notice of its links: "restart", "signal" or "exec""#,
    ),
    default("chain.activate.signal", r#"signal = "SIGHUP""#, "The signal, by name or number"),
    required(
        "chain.activate.activate",
        r#"activate = ["/usr/local/bin/become-validator"]"#,
        "The command that makes the node sign",
    )
    .compound(),
    required(
        "chain.activate.deactivate",
        r#"deactivate = ["/usr/local/bin/become-standby"]"#,
        "The command that makes it stop signing",
    )
    .compound(),
    required("chain.probe.url", r#"url = "http://127.0.0.1:3030/status""#, "Tells the node's health, in JSON"),
    required("chain.probe.calls[].method", r#"method = "eth_syncing""#, "A JSON-RPC call, asked at url").compound(),
    default("chain.probe.calls[].params", "params = []", "Its parameters").compound(),
    required("chain.probe.exec", r#"exec = ["/usr/local/bin/is-synced"]"#, "A command: exit code 0 says synced")
        .compound(),
    required("chain.probe.tcp", r#"tcp = "127.0.0.1:3030""#, "An accepted connection says synced"),
    default("chain.probe.every", r#"every = "1s""#, "Between two probes of a settled node"),
    default("chain.probe.timeout", r#"timeout = "1s""#, "For one answer; no longer than `every`, if this is not said"),
    default("chain.probe.failures", "failures = 3", "Failed probes in a row until the node counts as unhealthy"),
    optional(
        "chain.probe.min_peers",
        "min_peers = 3",
        "any number",
        "A node with fewer peers is no ready standby, and a holder hands over",
    ),
    optional("chain.probe.syncing", r#"syncing = "/sync_info/syncing""#, "unknown", "Pointer to whether it catches up"),
    optional(
        "chain.probe.height",
        r#"height = "/sync_info/latest_block_height""#,
        "unknown",
        "Pointer to the head's height",
    ),
    optional(
        "chain.probe.target_height",
        r#"target_height = "/highest""#,
        "unknown",
        "Pointer to the height that the node is on its way to",
    ),
    default("chain.probe.behind_max", "behind_max = 1", "A node that is further below it counts as syncing"),
    optional(
        "chain.probe.head_time",
        r#"head_time = "/sync_info/latest_block_time""#,
        "no failover",
        "Pointer to the head's time: RFC 3339 or seconds since 1970",
    ),
    optional(
        "chain.probe.peers",
        r#"peers = "/peers""#,
        "unknown",
        "Pointer to the number of peers, or a list of them",
    ),
    optional(
        "chain.probe.key",
        r#"key = "/validator_public_key""#,
        "every handover stops the node",
        "Pointer to what is there while the validator key is loaded",
    ),
    optional(
        "chain.probe.key_validating",
        r#"key_validating = "THE SHARED PUBLIC KEY""#,
        "any value is the key",
        "What stands at `key` when it is the shared one",
    ),
    optional(
        "chain.probe.key_standby",
        r#"key_standby = "THIS HOST'S OWN PUBLIC KEY""#,
        "none",
        "What stands at `key` on a standby",
    ),
    optional("chain.probe.version", r#"version = "/version/version""#, "unknown", "Pointer to the node's version"),
    required(
        "chain.last_signed.file",
        r#"file = "/var/lib/node/last_signed.json""#,
        "Where the node records what it signed last, in JSON; it makes a handover exact",
    ),
    required("chain.last_signed.height", r#"height = "/height""#, "Pointer to the height"),
    optional("chain.last_signed.round", r#"round = "/round""#, "none", "Pointer to the round"),
    optional("chain.last_signed.step", r#"step = "/step""#, "none", "Pointer to the step"),
    optional(
        "chain.near.validating_addr",
        r#"validating_addr = "0.0.0.0:24567""#,
        "unchanged",
        "neard's network.addr with the validator's node key",
    ),
    optional("chain.near.standby_addr", r#"standby_addr = "0.0.0.0:24568""#, "unchanged", "The same as standby"),
    optional(
        "upgrade.name",
        r#"name = "gaiad""#,
        "the command runs as it stands",
        "The node's binary, swapped at upgrades as cosmovisor does it",
    ),
    optional("upgrade.root", r#"root = "/var/lib/gaia""#, "chain.home", "Has cosmovisor/ and data/ in it"),
    default(
        "upgrade.allow_download",
        "allow_download = false",
        "Get a missing binary from where the chain's plan says",
    ),
    default("upgrade.restart_after", "restart_after = true", "Go on after an upgrade; else node and coordinator stop"),
    default("upgrade.poll", r#"poll = "300ms""#, "Between two looks at data/upgrade-info.json"),
    default(
        "upgrade.backup",
        r#"backup = "copy""#,
        r#"Of data/ before an upgrade: "copy", "links" (database files are hard-linked) or "none""#,
    ),
    optional("upgrade.backup_dir", r#"backup_dir = "/var/backups/gaia""#, "upgrade.root", "Where backups go"),
    default(
        "upgrade.preupgrade_retries",
        "preupgrade_retries = 0",
        "How often pre-upgrade is run again that asks for it",
    ),
    default("upgrade.download_max_mib", "download_max_mib = 2048", "Largest download, and what is unpacked from it"),
    required(
        "signer.key",
        r#"key = "/etc/baton/keys/priv_validator_key.json""#,
        "The validator's key, which baton-signer alone opens (chmod 600)",
    ),
    optional(
        "signer.node",
        r#"node = "unix:///run/baton/privval.sock""#,
        "privval.sock in member.run_dir",
        "The chain node's priv_validator_laddr",
    ),
    optional(
        "signer.sentries",
        r#"sentries = ["tcp://10.0.0.5:26659"]"#,
        "none",
        "Nodes that baton does not run and that ask the holder too",
    )
    .compound(),
    optional(
        "metrics.listen",
        r#"listen = "127.0.0.1:2233""#,
        "nothing is served",
        "HTTP: a status page at /, and /metrics /health /ready /node-pid",
    ),
    optional(
        "watchdog.device",
        r#"device = "/dev/watchdog""#,
        "no watchdog",
        "Resets this host when its kernel hangs while it holds the baton",
    ),
    optional(
        "hooks.on_holder",
        r#"on_holder = ["/etc/baton/hooks/webhook"]"#,
        "nothing is run",
        "A command that is run when this host has become the holder",
    )
    .compound(),
    optional(
        "hooks.on_standby",
        r#"on_standby = ["/etc/baton/hooks/webhook"]"#,
        "nothing is run",
        "The same when it is the holder no more, and when its coordinator starts",
    )
    .compound(),
    optional(
        "hooks.on_lost_quorum",
        r#"on_lost_quorum = ["/etc/baton/hooks/webhook"]"#,
        "nothing is run",
        "The same when this member reaches no majority any more",
    )
    .compound(),
    optional(
        "hooks.on_fenced",
        r#"on_fenced = ["/etc/baton/hooks/webhook"]"#,
        "nothing is run",
        "The same when the guard ended the chain node at its deadline",
    )
    .compound(),
    default("hooks.timeout", r#"timeout = "30s""#, "A hook that runs for longer is killed, with all that it started"),
];
