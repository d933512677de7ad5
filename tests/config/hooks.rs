//! `[hooks]`: what it means, and what is refused.

use std::time::Duration;

use baton::base::hooks::HookEvent;
use baton::config::Hooks;

use crate::mistakes::assert_lines;
use crate::{ARBITER, EXAMPLE, load, load_with};

fn hooks(lines: &str) -> Hooks {
    load(&format!("{EXAMPLE}\n[hooks]\n{lines}")).expect("sound").hooks
}

#[test]
fn hooks_are_commands_with_a_timeout_and_none_is_usual() {
    let none = load(EXAMPLE).expect("sound").hooks;
    assert_eq!((none.commands.len(), none.timeout), (0, Duration::from_secs(30)));
    let two = hooks("on_holder = [\"notify\", \"-v\"]\non_fenced = [\"./fenced\"]\ntimeout = \"5s\"\n");
    assert_eq!(two.commands.keys().copied().collect::<Vec<_>>(), [HookEvent::Holder, HookEvent::Fenced]);
    assert_eq!(two.commands[&HookEvent::Holder].argv, ["notify", "-v"]);
    let fenced = &two.commands[&HookEvent::Fenced].argv[0];
    assert!(fenced.starts_with('/') && fenced.ends_with("/fenced"), "from the directory of the file: {fenced}");
    assert_eq!(two.timeout, Duration::from_secs(5));
}

#[test]
fn an_arbiter_is_told_of_a_lost_quorum_alone() {
    let with = |key: &str| load(&format!("{ARBITER}\n[hooks]\n{key} = [\"true\"]\n"));
    assert!(with("on_lost_quorum").is_ok());
    for key in ["on_holder", "on_standby", "on_fenced"] {
        let line = with(key).expect_err("refused");
        assert!(line.starts_with(&format!("hooks.{key} in baton.toml:")), "{line}");
        assert!(line.ends_with("is an arbiter and never holds the baton, so this never runs; remove it"), "{line}");
    }
}

#[test]
fn mistakes_have_their_lines() {
    let with = |lines: &str| format!("[hooks]\n{lines}\n[metrics]");
    let cases = [
        ("on_holders = [\"true\"]", "unknown key hooks.on_holders in baton.toml:50; did you mean hooks.on_holder?"),
        (
            "on_holder = \"true\"",
            "hooks.on_holder in baton.toml:50: \"true\" is not a list of strings; for example: on_holder = \
             [\"/etc/baton/hooks/webhook\"]",
        ),
        (
            "on_holder = []",
            "hooks.on_holder in baton.toml:50: is empty; for example: on_holder = [\"/etc/baton/hooks/webhook\"]",
        ),
        (
            "on_holder = [\"true\"]\ntimeout = \"11m\"",
            "hooks.timeout in baton.toml:51: 11m is out of range; use 100ms to 10m",
        ),
        (
            "timeout = \"5s\"",
            "hooks.timeout in baton.toml:50: means nothing without a hook; name one, as on_holder, or remove it",
        ),
    ];
    let cases: Vec<(String, &str)> = cases.into_iter().map(|(lines, says)| (with(lines), says)).collect();
    let cases: Vec<(&str, &str, &str)> = cases.iter().map(|(text, says)| ("[metrics]", text.as_str(), *says)).collect();
    assert_lines(&cases);
}

/// They begin like variables of a section, and a hook runs `baton status` with them.
#[test]
fn what_a_hook_is_told_is_no_key() {
    let told = ["EVENT", "CLUSTER", "MEMBER", "HOLDER", "EPOCH", "TERM", "SINCE", "REASON"];
    let told: Vec<(String, String)> = told.iter().map(|name| (format!("BATON_{name}"), "x".to_owned())).collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(load_with(EXAMPLE, &told).is_ok());
    let line = load_with(EXAMPLE, &[("BATON_HOOKS_ON_HOLDER", "true")]).expect_err("refused");
    assert!(line.contains("cannot override hooks.on_holder"), "{line}");
}
