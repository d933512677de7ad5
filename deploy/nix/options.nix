# The keys of src/config/key_list.rs, kept equal by tests/config/nix.rs, which writes them.
[
  {
    path = "member.id";
    type = "string";
    example = "host-a";
    absent = "required";
    says = "Who this host is: one of cluster.members";
  }
  {
    path = "member.state_dir";
    type = "string";
    example = "/var/lib/baton";
    absent = "required";
    says = "The store: votes, log, identity; on a disk that survives a power loss";
  }
  {
    path = "member.run_dir";
    type = "string";
    example = "/run/baton";
    absent = "required";
    says = "Sockets of baton-guard and of `baton status`";
  }
  {
    path = "member.disk_timeout";
    type = "string";
    example = "5s";
    absent = "usually \"5s\"";
    says = "A disk that does not answer for longer hangs, and its host gives the baton up";
  }
  {
    path = "member.record_mib";
    type = "integer";
    example = 64;
    absent = "usually 64";
    says = "MiB of what the coordinator was told and decided, for `baton replay`; 0 keeps nothing";
  }
  {
    path = "member.snapshot_every";
    type = "integer";
    example = 500;
    absent = "usually 500";
    says = "Entries of the log between two snapshots; those before them are removed. For tests";
  }
  {
    path = "member.join";
    type = "boolean";
    example = false;
    absent = "usually false";
    says = "Never form a cluster: with an empty store, wait for `baton member add`";
  }
  {
    path = "cluster.name";
    type = "string";
    example = "my-validator";
    absent = "required";
    says = "Members of another name are refused";
  }
  {
    path = "cluster.listen";
    type = "string";
    example = "0.0.0.0:7401";
    absent = "required";
    says = "IP:PORT where this member waits for the others";
  }
  {
    path = "cluster.failback";
    type = "boolean";
    example = false;
    absent = "usually false";
    says = "A returning preferred member takes the baton back, by handover";
  }
  {
    path = "cluster.members[].id";
    type = "string";
    example = "host-a";
    absent = "required";
    says = "The member";
  }
  {
    path = "cluster.members[].addr";
    type = "string";
    example = "10.0.0.1:7401";
    absent = "required";
    says = "HOST:PORT where the others reach it";
  }
  {
    path = "cluster.members[].role";
    type = "string";
    example = "validator";
    absent = "usually \"validator\"";
    says = "\"validator\", or \"arbiter\", which votes and runs no chain node";
  }
  {
    path = "cluster.members[].priority";
    type = "integer";
    example = 100;
    absent = "usually 100";
    says = "Higher is preferred, 0 to 1000000";
  }
  {
    path = "timing.profile";
    type = "string";
    example = "lan";
    absent = "usually \"lan\"";
    says = "\"lan\", \"wan\" for members far apart, \"fast\" with real-time priority, \"signer\" for that custody";
  }
  {
    path = "timing.heartbeat";
    type = "string";
    example = "150ms";
    absent = "usually \"150ms\"";
    says = "The leader's pace";
  }
  {
    path = "timing.lease";
    type = "string";
    example = "1s";
    absent = "usually \"1s\"";
    says = "How long a quorum's acknowledgement lets the holder sign";
  }
  {
    path = "timing.kill_max";
    type = "string";
    example = "150ms";
    absent = "usually \"150ms\"";
    says = "Longest time the guard takes to kill the chain node";
  }
  {
    path = "timing.drift_ppm";
    type = "integer";
    example = 1000;
    absent = "usually 1000";
    says = "Assumed error of a host's clock rate, in parts per million";
  }
  {
    path = "timing.older_members_lease";
    type = "string";
    example = "1s";
    absent = "their answers make no lease";
    says = "The lease of members of an earlier version, at least";
  }
  {
    path = "tls.ca";
    type = "string";
    example = "ca.pem";
    absent = "required";
    says = "Who signs the members' certificates";
  }
  {
    path = "tls.cert";
    type = "string";
    example = "host-a.pem";
    absent = "required";
    says = "This member's certificate, which names member.id";
  }
  {
    path = "tls.key";
    type = "string";
    example = "host-a.key";
    absent = "required";
    says = "Its private key, closed to group and others";
  }
  {
    path = "tls.insecure";
    type = "boolean";
    example = false;
    absent = "usually false";
    says = "Do without TLS: WHOEVER REACHES THE PORT CAN SPEAK AS ANY MEMBER";
  }
  {
    path = "chain.driver";
    type = "string";
    example = "near";
    absent = "required";
    says = "What kind of chain node it is: \"near\", \"cometbft\" or \"generic\"";
  }
  {
    path = "chain.home";
    type = "string";
    example = "/var/lib/near";
    absent = "required";
    says = "The node's home; links lie below it";
  }
  {
    path = "chain.command";
    type = "list";
    example = "[\"neard\", \"--home\", \"/var/lib/near\", \"run\"]";
    absent = "required";
    says = "The node's command line: the node itself, or a script that ends in exec";
  }
  {
    path = "chain.env";
    type = "table";
    example = "{ RUST_LOG = \"info\" }";
    absent = "nothing";
    says = "Added to the node's environment";
  }
  {
    path = "chain.log";
    type = "string";
    example = "/var/log/near.log";
    absent = "where baton's own output goes";
    says = "The node's output is appended here";
  }
  {
    path = "chain.log_max_mib";
    type = "integer";
    example = 64;
    absent = "usually 64";
    says = "From how many MiB on that file's older part is set aside";
  }
  {
    path = "chain.log_kept";
    type = "integer";
    example = 4;
    absent = "usually 4";
    says = "Older parts of that file that are kept";
  }
  {
    path = "chain.custody";
    type = "string";
    example = "links";
    absent = "usually \"links\"";
    says = "Who has the key: \"links\", the holder's chain node; \"signer\", none of them";
  }
  {
    path = "chain.stop_timeout";
    type = "string";
    example = "30s";
    absent = "usually \"30s\"";
    says = "From SIGTERM to SIGKILL";
  }
  {
    path = "chain.clock_skew";
    type = "string";
    example = "200ms";
    absent = "usually \"200ms\"";
    says = "Largest difference between this host's clock and a block header's";
  }
  {
    path = "chain.on_halt";
    type = "string";
    example = "wait";
    absent = "usually \"wait\"";
    says = "When the chain stands still: \"wait\", or \"replica\", which CAN SIGN A HEIGHT TWICE: docs/safety.md";
  }
  {
    path = "chain.halt_after";
    type = "string";
    example = "30s";
    absent = "usually \"30s\"";
    says = "How long the head stands still before a mark is trusted";
  }
  {
    path = "chain.keys_on_tmpfs";
    type = "boolean";
    example = false;
    absent = "usually false";
    says = "Links lead through run_dir, a tmpfs, so that a reboot leaves no key";
  }
  {
    path = "chain.links[].link";
    type = "string";
    example = "validator_key.json";
    absent = "required";
    says = "The link, below chain.home; the first one is the validator key";
  }
  {
    path = "chain.links[].validating";
    type = "string";
    example = "/etc/baton/keys/validator_key.json";
    absent = "required";
    says = "What it points to while this host holds the baton (chmod 600)";
  }
  {
    path = "chain.links[].standby";
    type = "string";
    example = "/etc/baton/keys/voter_node_key.json";
    absent = "no link";
    says = "What it points to otherwise";
  }
  {
    path = "chain.activate.how";
    type = "string";
    example = "restart";
    absent = "usually \"restart\"";
    says = "What makes the node take notice of its links: \"restart\", \"signal\" or \"exec\"";
  }
  {
    path = "chain.activate.signal";
    type = "string";
    example = "SIGHUP";
    absent = "usually \"SIGHUP\"";
    says = "The signal, by name or number";
  }
  {
    path = "chain.activate.activate";
    type = "list";
    example = "[\"/usr/local/bin/become-validator\"]";
    absent = "required";
    says = "The command that makes the node sign";
  }
  {
    path = "chain.activate.deactivate";
    type = "list";
    example = "[\"/usr/local/bin/become-standby\"]";
    absent = "required";
    says = "The command that makes it stop signing";
  }
  {
    path = "chain.probe.url";
    type = "string";
    example = "http://127.0.0.1:3030/status";
    absent = "required";
    says = "Tells the node's health, in JSON";
  }
  {
    path = "chain.probe.calls[].method";
    type = "string";
    example = "eth_syncing";
    absent = "required";
    says = "A JSON-RPC call, asked at url";
  }
  {
    path = "chain.probe.calls[].params";
    type = "list";
    example = "[]";
    absent = "usually []";
    says = "Its parameters";
  }
  {
    path = "chain.probe.exec";
    type = "list";
    example = "[\"/usr/local/bin/is-synced\"]";
    absent = "required";
    says = "A command: exit code 0 says synced";
  }
  {
    path = "chain.probe.tcp";
    type = "string";
    example = "127.0.0.1:3030";
    absent = "required";
    says = "An accepted connection says synced";
  }
  {
    path = "chain.probe.every";
    type = "string";
    example = "1s";
    absent = "usually \"1s\"";
    says = "Between two probes of a settled node";
  }
  {
    path = "chain.probe.timeout";
    type = "string";
    example = "1s";
    absent = "usually \"1s\"";
    says = "For one answer; no longer than `every`, if this is not said";
  }
  {
    path = "chain.probe.failures";
    type = "integer";
    example = 3;
    absent = "usually 3";
    says = "Failed probes in a row until the node counts as unhealthy";
  }
  {
    path = "chain.probe.min_peers";
    type = "integer";
    example = 3;
    absent = "any number";
    says = "A node with fewer peers is no ready standby, and a holder hands over";
  }
  {
    path = "chain.probe.syncing";
    type = "string";
    example = "/sync_info/syncing";
    absent = "unknown";
    says = "Pointer to whether it catches up";
  }
  {
    path = "chain.probe.height";
    type = "string";
    example = "/sync_info/latest_block_height";
    absent = "unknown";
    says = "Pointer to the head's height";
  }
  {
    path = "chain.probe.target_height";
    type = "string";
    example = "/highest";
    absent = "unknown";
    says = "Pointer to the height that the node is on its way to";
  }
  {
    path = "chain.probe.behind_max";
    type = "integer";
    example = 1;
    absent = "usually 1";
    says = "A node that is further below it counts as syncing";
  }
  {
    path = "chain.probe.head_time";
    type = "string";
    example = "/sync_info/latest_block_time";
    absent = "no failover";
    says = "Pointer to the head's time: RFC 3339 or seconds since 1970";
  }
  {
    path = "chain.probe.peers";
    type = "string";
    example = "/peers";
    absent = "unknown";
    says = "Pointer to the number of peers, or a list of them";
  }
  {
    path = "chain.probe.key";
    type = "string";
    example = "/validator_public_key";
    absent = "every handover stops the node";
    says = "Pointer to what is there while the validator key is loaded";
  }
  {
    path = "chain.probe.key_validating";
    type = "string";
    example = "THE SHARED PUBLIC KEY";
    absent = "any value is the key";
    says = "What stands at `key` when it is the shared one";
  }
  {
    path = "chain.probe.key_standby";
    type = "string";
    example = "THIS HOST'S OWN PUBLIC KEY";
    absent = "none";
    says = "What stands at `key` on a standby";
  }
  {
    path = "chain.probe.version";
    type = "string";
    example = "/version/version";
    absent = "unknown";
    says = "Pointer to the node's version";
  }
  {
    path = "chain.last_signed.file";
    type = "string";
    example = "/var/lib/node/last_signed.json";
    absent = "required";
    says = "Where the node records what it signed last, in JSON; it makes a handover exact";
  }
  {
    path = "chain.last_signed.height";
    type = "string";
    example = "/height";
    absent = "required";
    says = "Pointer to the height";
  }
  {
    path = "chain.last_signed.round";
    type = "string";
    example = "/round";
    absent = "none";
    says = "Pointer to the round";
  }
  {
    path = "chain.last_signed.step";
    type = "string";
    example = "/step";
    absent = "none";
    says = "Pointer to the step";
  }
  {
    path = "chain.near.validating_addr";
    type = "string";
    example = "0.0.0.0:24567";
    absent = "unchanged";
    says = "neard's network.addr with the validator's node key";
  }
  {
    path = "chain.near.standby_addr";
    type = "string";
    example = "0.0.0.0:24568";
    absent = "unchanged";
    says = "The same as standby";
  }
  {
    path = "upgrade.name";
    type = "string";
    example = "gaiad";
    absent = "the command runs as it stands";
    says = "The node's binary, swapped at upgrades as cosmovisor does it";
  }
  {
    path = "upgrade.root";
    type = "string";
    example = "/var/lib/gaia";
    absent = "chain.home";
    says = "Has cosmovisor/ and data/ in it";
  }
  {
    path = "upgrade.allow_download";
    type = "boolean";
    example = false;
    absent = "usually false";
    says = "Get a missing binary from where the chain's plan says";
  }
  {
    path = "upgrade.restart_after";
    type = "boolean";
    example = true;
    absent = "usually true";
    says = "Go on after an upgrade; else node and coordinator stop";
  }
  {
    path = "upgrade.poll";
    type = "string";
    example = "300ms";
    absent = "usually \"300ms\"";
    says = "Between two looks at data/upgrade-info.json";
  }
  {
    path = "upgrade.backup";
    type = "string";
    example = "copy";
    absent = "usually \"copy\"";
    says = "Of data/ before an upgrade: \"copy\", \"links\" (database files are hard-linked) or \"none\"";
  }
  {
    path = "upgrade.backup_dir";
    type = "string";
    example = "/var/backups/gaia";
    absent = "upgrade.root";
    says = "Where backups go";
  }
  {
    path = "upgrade.preupgrade_retries";
    type = "integer";
    example = 0;
    absent = "usually 0";
    says = "How often pre-upgrade is run again that asks for it";
  }
  {
    path = "upgrade.download_max_mib";
    type = "integer";
    example = 2048;
    absent = "usually 2048";
    says = "Largest download, and what is unpacked from it";
  }
  {
    path = "signer.key";
    type = "string";
    example = "/etc/baton/keys/priv_validator_key.json";
    absent = "required";
    says = "The validator's key, which baton-signer alone opens (chmod 600)";
  }
  {
    path = "signer.node";
    type = "string";
    example = "unix:///run/baton/privval.sock";
    absent = "privval.sock in member.run_dir";
    says = "The chain node's priv_validator_laddr";
  }
  {
    path = "signer.sentries";
    type = "list";
    example = "[\"tcp://10.0.0.5:26659\"]";
    absent = "none";
    says = "Nodes that baton does not run and that ask the holder too";
  }
  {
    path = "metrics.listen";
    type = "string";
    example = "127.0.0.1:2233";
    absent = "nothing is served";
    says = "HTTP: a status page at /, and /metrics /health /ready /node-pid";
  }
  {
    path = "watchdog.device";
    type = "string";
    example = "/dev/watchdog";
    absent = "no watchdog";
    says = "Resets this host when its kernel hangs while it holds the baton";
  }
  {
    path = "hooks.on_holder";
    type = "list";
    example = "[\"/etc/baton/hooks/webhook\"]";
    absent = "nothing is run";
    says = "A command that is run when this host has become the holder";
  }
  {
    path = "hooks.on_standby";
    type = "list";
    example = "[\"/etc/baton/hooks/webhook\"]";
    absent = "nothing is run";
    says = "The same when it is the holder no more, and when its coordinator starts";
  }
  {
    path = "hooks.on_lost_quorum";
    type = "list";
    example = "[\"/etc/baton/hooks/webhook\"]";
    absent = "nothing is run";
    says = "The same when this member reaches no majority any more";
  }
  {
    path = "hooks.on_fenced";
    type = "list";
    example = "[\"/etc/baton/hooks/webhook\"]";
    absent = "nothing is run";
    says = "The same when the guard ended the chain node at its deadline";
  }
  {
    path = "hooks.timeout";
    type = "string";
    example = "30s";
    absent = "usually \"30s\"";
    says = "A hook that runs for longer is killed, with all that it started";
  }
]
