//! The driver beside a real single-validator CometBFT: does the node take the key and the sign state
//! that the driver writes? `cargo test --test host chain:: -- --ignored`, with `cometbft` in PATH.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::*;

const KEY: &str = "config/priv_validator_key.json";

struct Node(Child);

impl Node {
    fn start(chain: &Chain) -> Node {
        let log = std::fs::File::options().create(true).append(true).open(chain.home.join("node.log")).expect("log");
        let mut command = Command::new(&chain.command[0]);
        command.args(&chain.command[1..]).stdout(log).stderr(Stdio::null());
        // SAFETY: prctl(2) alone runs between fork and exec; it neither allocates nor takes a lock.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        Node(command.spawn().expect("cometbft"))
    }

    fn stop(mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).expect("SIGTERM");
        self.0.wait().expect("the node's end");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port()
}

/// A home made by `cometbft init` whose key moved behind a link.
fn real_chain(home: &Path) -> Chain {
    let home_text = home.display().to_string();
    let made = Command::new("cometbft").args(["init", "--home", &home_text]).output().expect("cometbft in PATH");
    assert!(made.status.success(), "{made:?}");
    let (rpc, p2p) = (free_port(), free_port());
    let mut chain = cometbft::cometbft_chain(home, format!("http://127.0.0.1:{rpc}/status"));
    chain.command = ["cometbft", "start", "--home", &home_text, "--proxy_app=kvstore"].map(str::to_owned).to_vec();
    chain.command.push(format!("--rpc.laddr=tcp://127.0.0.1:{rpc}"));
    chain.command.push(format!("--p2p.laddr=tcp://127.0.0.1:{p2p}"));
    chain.probe.timeout = Duration::from_secs(2);
    std::fs::create_dir(home.join("keys")).expect("keys");
    std::fs::rename(home.join(KEY), &chain.links[0].validating).expect("the key moves");
    chain
}

fn point(chain: &Chain, target: &Path) {
    let _ = std::fs::remove_file(&chain.links[0].link);
    std::os::unix::fs::symlink(target, &chain.links[0].link).expect("link");
}

async fn until(driver: &Driver, what: &str, reached: impl Fn(&Health) -> bool) -> Health {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = driver.probe().await;
        match answer {
            Ok(health) if reached(&health) => return health,
            Ok(_) | Err(_) => assert!(Instant::now() < deadline, "{what}: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs cometbft in PATH and ten seconds"]
async fn a_real_node_signs_above_the_floor_and_runs_with_the_throwaway_key() {
    let home = tempfile::tempdir().expect("home");
    let chain = real_chain(home.path());
    let driver = driver(&chain, home.path());
    assert_eq!(driver.check().await, Ok(Vec::new()));

    // The same host with the two keys mixed up: in the genesis file, and as the running node shows it.
    let mut mixed = chain.clone();
    let spec = &mut mixed.links[0];
    spec.standby = Some(std::mem::replace(&mut spec.validating, spec.standby.take().expect("standby")));
    let mixed = self::driver(&mixed, home.path());
    let refused = mixed.check().await.expect_err("a validator's key as standby key").to_string();
    assert!(refused.contains("belongs to a validator of") && refused.contains("genesis.json"), "{refused}");

    point(&chain, &chain.links[0].validating);
    let node = Node::start(&chain);
    let seen = until(&driver, "three blocks", |health| health.height >= 3).await;
    assert_eq!(seen.key, KeyState::Loaded);
    let signs = mixed.probe().await.expect_err("a standby with voting power").to_string();
    assert!(signs.contains("is in the validator set, with voting power 10"), "{signs}");
    node.stop();
    driver.after_stop().await.expect("saved");
    let signed = driver.last_signed().await.expect("read").expect("a mark");
    assert!(signed.height >= seen.height, "{signed} after {seen:?}");

    point(&chain, chain.links[0].standby.as_deref().expect("standby"));
    let node = Node::start(&chain);
    let standby = until(&driver, "a standby", |_| true).await;
    assert_eq!(standby.key, KeyState::Absent);
    node.stop();
    driver.after_stop().await.expect("saved");
    assert_eq!(driver.last_signed().await.expect("read"), Some(signed), "the throwaway key signs nothing");

    driver.prepare_validator(&SignFloor::Mark(signed), None).await.expect("prepared");
    point(&chain, &chain.links[0].validating);
    let node = Node::start(&chain);
    until(&driver, "blocks beyond the mark", |health| health.height >= signed.height + 2).await;
    node.stop();

    // A link that is configured without a standby key gets one of baton's own.
    let mut own = chain.clone();
    own.links[0].standby = None;
    let own = self::driver(&own, home.path());
    assert_eq!(own.check().await, Ok(Vec::new()));
    point(&chain, own.links()[0].standby.as_deref().expect("standby"));
    let node = Node::start(&chain);
    assert_eq!(until(&own, "a standby", |_| true).await.key, KeyState::Absent);
    node.stop();

    // One validator, and it may not sign below 1,000: the chain has to stand still.
    let floor = SignFloor::BlockAfter(seconds(1));
    driver.prepare_validator(&floor, Some(&health(1000, Some(seconds(2))))).await.expect("prepared");
    point(&chain, &chain.links[0].validating);
    let node = Node::start(&chain);
    let first = until(&driver, "the node", |_| true).await;
    let refused = || std::fs::read_to_string(home.path().join("node.log")).expect("log").contains("height regression");
    let later = until(&driver, "a refusal to sign in the log", |_| refused()).await;
    assert_eq!(later.height, first.height, "blocks although the key may not sign");
    node.stop();
    assert_eq!(driver.last_signed().await.expect("read").map(|mark| mark.height), Some(1000));
}
