//! `[watchdog]`: what it means, and what is refused.

use std::path::Path;

use crate::signer::with_signer;
use crate::{ARBITER, EXAMPLE, load};

const SECTION: &str = "\n[watchdog]\ndevice = \"/dev/watchdog\"\n";

#[test]
fn a_host_with_a_chain_node_may_have_a_watchdog_and_none_is_usual() {
    assert_eq!(load(EXAMPLE).expect("sound").watchdog, None);
    let with = load(&format!("{EXAMPLE}{SECTION}")).expect("sound").watchdog;
    assert_eq!(with.as_deref(), Some(Path::new("/dev/watchdog")));
}

#[test]
fn it_is_refused_where_no_guard_has_a_deadline() {
    let line = load(&format!("{ARBITER}{SECTION}")).expect_err("refused");
    assert!(line.starts_with("watchdog.device in baton.toml:"), "{line}");
    assert!(
        line.ends_with("is an arbiter and never holds the baton, so there is nothing to watch; remove it"),
        "{line}"
    );
    let line = load(&format!("{}{SECTION}", with_signer(""))).expect_err("refused");
    assert!(line.ends_with("the log decides what is signed, and no deadline; remove it"), "{line}");
}
