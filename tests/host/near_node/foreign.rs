//! A node that does not belong to baton, as an old service that is still enabled, answers where ours is probed or has
//! its home open.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use baton::base::chain_node::Activation;
use baton::base::time::WallTime;
use baton::core::Stage;
use serde_json::Value;

use super::stage::Host;
use crate::kit::fake_node::{Answer, FakeNode};

const HOT: Activation = Activation::Signal(1);

/// In sync, with the validator's key: all that a holder's node would say.
async fn other_node(host: &Host) -> FakeNode {
    let mut status: Value = serde_json::from_str(include_str!("../../data/near-status.json")).expect("a status");
    status["sync_info"]["latest_block_time"] = WallTime::now().to_string().into();
    status["validator_account_id"] = "node3".into();
    status["validator_public_key"] = "ed25519:x".into();
    FakeNode::start_at(&host.addr, "/status", Answer::Body(status.to_string())).await
}

fn not_ready(host: &crate::kit::host::Host) -> String {
    host.core.read(|core, now| core.not_ready(now.boot).map(|reason| reason.to_string())).unwrap_or_default()
}

/// It is this process that listens at `addr`.
fn names_us(told: &str, addr: &str) -> bool {
    told.contains(&format!("(pid {})", std::process::id())) && told.contains(addr)
}

#[tokio::test]
async fn beside_a_node_that_is_not_ours_nothing_is_started_or_claimed_until_it_is_gone() {
    let mut host = Host::new(HOT).await;
    let mut other = other_node(&host).await;
    host.obey(true);
    let addr = host.addr.clone();
    host.until("told", |host| names_us(&not_ready(host), &addr)).await;
    let seen = host.effects.seen().borrow().clone();
    assert!(seen.foreign.is_some_and(|told| names_us(&told, &host.addr)));
    assert_eq!(seen.health, None);
    assert_eq!((host.events(), host.stage()), (vec![], None), "nothing started, nothing claimed");
    assert_eq!(other.requests(), Vec::<String>::new(), "it is not even asked");
    other.stop().await;
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
    assert_eq!(host.effects.seen().borrow().foreign, None);
    assert_eq!(host.core.read(|core, _| core.host().crashes()), 0, "nothing has failed");
}

#[tokio::test]
async fn an_answer_of_another_node_does_not_prove_that_ours_is_active() {
    let mut host = Host::new(Activation::Restart).await;
    std::fs::write(host.home("late"), "").expect("a flag");
    host.obey(true);
    host.event(0, "start key=node3").await;
    let mut other = other_node(&host).await;
    let addr = host.addr.clone();
    host.until("told", |host| names_us(&not_ready(host), &addr)).await;
    assert_eq!(host.stage(), Some(Stage::Activating));
    other.stop().await;
    std::fs::remove_file(host.home("late")).expect("a flag");
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // Its standard input ends, and so does what it runs.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_node_is_not_started_in_a_home_whose_database_another_process_has_locked() {
    let mut host = Host::new(HOT).await;
    let lock = host.home("LOCK");
    File::create(&lock).expect("a file");
    let mut command = Command::new("flock");
    command.arg(&lock).args(["sh", "-c", "echo held; read end"]);
    let mut holder = Holder(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("flock(1)"));
    let mut said = String::new();
    let mut out = std::io::BufReader::new(holder.0.stdout.take().expect("its output"));
    std::io::BufRead::read_line(&mut out, &mut said).expect("its word");
    host.obey(true);
    host.until("told", |host| not_ready(host).contains("home/LOCK open")).await;
    assert_eq!((host.events(), host.stage()), (vec![], None), "{}", not_ready(&host));
    drop(holder);
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
}
