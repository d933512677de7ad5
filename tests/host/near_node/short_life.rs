//! A node that ends by itself soon after its start: what an operator reads of it.

use super::*;

#[tokio::test]
async fn a_node_that_ends_right_after_its_start_shows_its_last_line_until_it_answers() {
    let mut host = Host::new(HOT).await;
    std::fs::write(host.home("node.log"), "of an earlier process\n").expect("a log");
    std::fs::write(host.home("ends"), "cannot open the database: LOCK is held\n").expect("a flag");
    host.obey(false);
    host.until("told", |host| host.note().contains("its last line: cannot open the database: LOCK is held")).await;
    let note = host.note();
    assert!(note.starts_with("the chain node ended with exit code 3, 0."), "{note}");
    std::fs::remove_file(host.home("ends")).expect("removed");
    host.until("ready", is_ready).await;
    assert_eq!(host.note(), "", "it is well");
}
