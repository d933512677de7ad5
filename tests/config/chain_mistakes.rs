//! Mistakes in `[chain]`, and the exact line of each.

use std::path::Path;

use crate::mistakes::assert_lines;
use crate::{EXAMPLE, edited, load};

#[test]
fn links_stay_below_home_and_never_lend_a_standby_the_key() {
    let link = "link = \"validator_key.json\"";
    let outside = |written: &str| {
        format!(
            "chain.links[0].link in baton.toml:32: {written:?} is not below chain.home = /var/lib/near; write a path \
             relative to it without .."
        )
    };
    assert_lines(&[
        (link, "link = \"/etc/passwd\"", &outside("/etc/passwd")),
        (link, "link = \"../x\"", &outside("../x")),
        (link, "link = \"/var/lib/near/../x\"", &outside("/var/lib/near/../x")),
        (link, "link = \"/var/lib/near\"", &outside("/var/lib/near")),
        (
            link,
            "link = \"node_key.json\"",
            "chain.links[1].link in baton.toml:36: \"node_key.json\" is the link of links[0] too; remove one of them",
        ),
        (
            "\"/etc/baton/keys/voter_node_key.json\"",
            "\"/etc/baton/keys/validator_node_key.json\"",
            "chain.links[1].standby in baton.toml:38: is the validating target too, so a standby would sign; name \
             another file or remove it",
        ),
        (
            "\"/etc/baton/keys/validator_key.json\"",
            "\"/var/lib/near/validator_key.json\"",
            "chain.links[0].link in baton.toml:32: \"validator_key.json\" would point to itself; move the target out of \
             the link's place",
        ),
    ]);
    let inside = load(&edited(link, "link = \"/var/lib/near/k.json\"")).expect("absolute and below home");
    assert_eq!(inside.chain.expect("chain").links[0].link, Path::new("/var/lib/near/k.json"));
    let from = EXAMPLE.find("[[chain.links]]").expect("links");
    let to = EXAMPLE.find("[chain.activate]").expect("activate");
    let bare = format!("{}{}", &EXAMPLE[..from], &EXAMPLE[to..]);
    assert_eq!(
        load(&bare).unwrap_err(),
        "missing key chain.links[].link in baton.toml; for example: link = \"validator_key.json\""
    );
}

#[test]
fn commands_activations_and_probes_that_cannot_work_are_refused() {
    let command = "command = [\"neard\", \"--home\", \"/var/lib/near\", \"run\"]";
    let example = "for example: command = [\"neard\", \"--home\", \"/var/lib/near\", \"run\"]";
    let signal = "how = \"signal\"  ";
    let url = "url = \"http://127.0.0.1:3030/status\"";
    assert_lines(&[
        (command, "command = []", &format!("chain.command in baton.toml:26: is empty; {example}")),
        (command, "command = [\"\", \"run\"]", &format!("chain.command in baton.toml:26: is empty; {example}")),
        (
            command,
            "command = \"neard\"",
            &format!("chain.command in baton.toml:26: \"neard\" is not a list of strings; {example}"),
        ),
        (
            command,
            "command = [1]",
            &format!("chain.command in baton.toml:26: a list is not a list of strings; {example}"),
        ),
        (
            command,
            "command = [\"x\"]\nenv = { A = 1 }",
            "chain.env in baton.toml:27: \"A\" is 1, not a string; write A = \"1\"",
        ),
        (
            signal,
            "how = \"restart\"",
            "chain.activate.signal in baton.toml:42: means nothing with how = \"restart\"; remove it or set how = \"signal\"",
        ),
        (
            "signal = \"SIGHUP\"",
            "signal = \"SIGKILL\"",
            "chain.activate.signal in baton.toml:42: SIGKILL is no signal to activate by; write \"SIGHUP\" or a number \
             from 1 to 64",
        ),
        (
            "signal = \"SIGHUP\"",
            "signal = 9",
            "chain.activate.signal in baton.toml:42: a process cannot act upon signal 9; write \"SIGHUP\" or what the \
             node documents",
        ),
        (
            "how = \"signal\"                    # restart | signal | exec\nsignal = \"SIGHUP\"",
            "how = \"exec\"\nactivate = [\"on\"]",
            "missing key chain.activate.deactivate in baton.toml; for example: [chain.activate] deactivate = \
             [\"/usr/local/bin/become-standby\"]",
        ),
        (
            "\"near\" ",
            "\"cometbft\"",
            "chain.activate.how in baton.toml:41: cometbft reads its key at start only; use how = \"restart\"",
        ),
        (
            url,
            "url = \"https://x/status\"",
            "chain.probe.url in baton.toml:45: \"https://x/status\" is not an http:// address; write \
             \"http://127.0.0.1:3030/status\"",
        ),
        (
            "every = \"1s\"",
            "height = \"/h\"",
            "chain.probe.height in baton.toml:46: driver near knows its node's answer; remove it, or use driver = \
             \"generic\"",
        ),
    ]);
}

#[test]
fn generic_probes_that_cannot_work_are_refused() {
    let generic = edited("\"near\" ", "\"generic\"");
    let url = "url = \"http://127.0.0.1:3030/status\"";
    assert_eq!(
        load(&generic.replace(url, &format!("{url}\ntcp = \"127.0.0.1:9\""))).unwrap_err(),
        "chain.probe in baton.toml:44: has more than one of url, exec and tcp; keep one"
    );
    assert_eq!(
        load(&generic.replace(url, &format!("{url}\nheight = \"result.height\""))).unwrap_err(),
        "chain.probe.height in baton.toml:46: \"result.height\" is not a JSON pointer; write \"/result/height\""
    );
    assert_eq!(
        load(&generic.replace(url, "tcp = \"127.0.0.1:9\"\nheight = \"/h\"")).unwrap_err(),
        "chain.probe.height in baton.toml:46: points into the answer of chain.probe.url, which is missing; add it"
    );
    let near = edited("[metrics]", "[[chain.probe.calls]]\nmethod = \"m\"\n[metrics]");
    assert_eq!(
        load(&near).unwrap_err(),
        "chain.probe.calls[0] in baton.toml:49: driver near knows its node's answer; remove them, or use driver = \
         \"generic\""
    );
}

#[test]
fn pointers_that_need_each_other_are_refused_alone() {
    let generic = edited("\"near\" ", "\"generic\"");
    let url = "url = \"http://127.0.0.1:3030/status\"";
    let names = "key_validating = \"a\"\nkey_standby = \"a\"";
    for (lines, expected) in [
        (
            "target_height = \"/t\"",
            "missing key chain.probe.height in baton.toml; for example: [chain.probe] height = \
             \"/sync_info/latest_block_height\"",
        ),
        (
            "behind_max = 3",
            "chain.probe.behind_max in baton.toml:46: is counted from chain.probe.target_height, which is missing; add it",
        ),
        (
            "height = \"/h\"\ntarget_height = \"/t\"\nbehind_max = 100001",
            "chain.probe.behind_max in baton.toml:48: 100001 is out of range; use 0 to 100000",
        ),
        (
            "target_height = \"t\"",
            "chain.probe.target_height in baton.toml:46: \"t\" is not a JSON pointer; write \"/t\"",
        ),
        (
            "key = \"/k\"\nkey_validating = \"a\"",
            "missing key chain.probe.key_standby in baton.toml; for example: [chain.probe] key_standby = \"THIS HOST'S \
             OWN PUBLIC KEY\"",
        ),
        (
            "key = \"/k\"\nkey_standby = \"a\"",
            "missing key chain.probe.key_validating in baton.toml; for example: [chain.probe] key_validating = \"THE \
             SHARED PUBLIC KEY\"",
        ),
        (
            names,
            "missing key chain.probe.key in baton.toml; for example: [chain.probe] key = \"/validator_public_key\"",
        ),
        (
            &format!("key = \"/k\"\n{names}"),
            "chain.probe.key_standby in baton.toml:48: is key_validating too, so a standby would look like the holder; \
             correct one",
        ),
    ] {
        let seen = load(&generic.replace(url, &format!("{url}\n{lines}"))).expect_err(lines);
        assert_eq!(seen, expected);
    }
    let near = edited("every = \"1s\"", "key_standby = \"a\"");
    assert_eq!(
        load(&near).unwrap_err(),
        "chain.probe.key_standby in baton.toml:46: driver near knows its node's answer; remove it, or use driver = \
         \"generic\""
    );
}

#[test]
fn json_rpc_calls_that_cannot_be_sent_are_refused() {
    let generic = edited("\"near\" ", "\"generic\"");
    for (call, expected) in [
        ("params = 1", "missing key chain.probe.calls[0].method in baton.toml; for example: method = \"eth_syncing\""),
        (
            "method = \"m\"\nparams = 1",
            "chain.probe.calls[0].params in baton.toml:51: 1 is not a list or a table; for example: params = []",
        ),
        (
            "method = \"m\"\nparams = [1.5]",
            "chain.probe.calls[0].params in baton.toml:51: 1.5 is neither text, whole number, boolean, list nor table",
        ),
        (
            "method = \"m\"\nparams = [{ a = [\"$/n/height\"] }]",
            "chain.probe.calls[0].params in baton.toml:51: \"$/n/height\" needs a call of n whose own params have no \
             \"$/\"; add it",
        ),
        (
            "method = \"m\"\nparams = [\"$/m\"]",
            "chain.probe.calls[0].params in baton.toml:51: \"$/m\" needs a call of m whose own params have no \"$/\"; \
             add it",
        ),
        (
            "method = \"m\"\n[[chain.probe.calls]]\nmethod = \"m\"",
            "chain.probe.calls[1].method in baton.toml:52: m is called by calls[0] too, and results go by method; keep one",
        ),
    ] {
        let text = generic.replace("[metrics]", &format!("[[chain.probe.calls]]\n{call}\n[metrics]"));
        assert_eq!(load(&text).expect_err(call), expected);
    }
    let no_url = generic.replace("url = \"http://127.0.0.1:3030/status\"", "tcp = \"127.0.0.1:1\"");
    assert_eq!(
        load(&no_url.replace("[metrics]", "[[chain.probe.calls]]\nmethod = \"m\"\n[metrics]")).unwrap_err(),
        "chain.probe.calls[0] in baton.toml:49: is asked at chain.probe.url, which is missing; add it"
    );
}

#[test]
fn nears_network_addresses_come_in_pairs_and_with_a_restart() {
    let hot = "how = \"signal\"                    # restart | signal | exec\nsignal = \"SIGHUP\"\n";
    let with = |how: &str, addrs: &str| format!("{how}\n[chain.near]\n{addrs}\n");
    let restart = "how = \"restart\"";
    let (validating, standby) = ("validating_addr = \"0.0.0.0:24567\"", "standby_addr = \"0.0.0.0:24568\"");
    let both = format!("{validating}\n{standby}");
    assert_lines(&[
        (
            hot,
            &with("how = \"signal\"", &both),
            "chain.near.validating_addr in baton.toml:43: cannot change in a running neard; set chain.activate.how = \
             \"restart\" or remove it",
        ),
        (
            hot,
            &with(restart, validating),
            "missing key chain.near.standby_addr in baton.toml; for example: [chain.near] standby_addr = \
             \"0.0.0.0:24568\"",
        ),
        (
            hot,
            &with(restart, &both.replace("24568", "24567")),
            "chain.near.standby_addr in baton.toml:44: 0.0.0.0:24567 is validating_addr too, so there is nothing to \
             switch; remove both",
        ),
        (
            hot,
            &with(restart, &both.replace("0.0.0.0:24568", "24568")),
            "chain.near.standby_addr in baton.toml:44: \"24568\" is not IP:PORT; write \"127.0.0.1:7401\" or \
             \"[::]:7401\"",
        ),
        (
            hot,
            &with(restart, "voter_addr = \"0.0.0.0:1\""),
            "unknown key chain.near.voter_addr in baton.toml:43; chain.near has validating_addr, standby_addr",
        ),
    ]);
    let generic = edited(hot, &with(restart, &both)).replace("driver = \"near\" ", "driver = \"generic\"");
    assert_eq!(
        load(&generic).unwrap_err(),
        "chain.near.validating_addr in baton.toml:43: means something to driver near alone; remove it or set driver = \
         \"near\""
    );
    let chain = load(&edited(hot, &with(restart, &both))).expect("sound").chain.expect("a chain");
    let addrs = chain.near_addrs.expect("both");
    assert_eq!((addrs.validating.port(), addrs.standby.port()), (24567, 24568));
}
