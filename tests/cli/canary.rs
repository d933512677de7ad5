//! `baton canary` as a probe sees it: one line, and an exit code that says what is wrong. The other end is the exporter
//! itself, or something that is none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::time::{Duration, Instant};

use baton::base::time::BootTime;
use baton::operator::exporter::{self, NO_QUORUM, Place, Published, Vitals};
use baton::operator::metrics::Metrics;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Far more than any answer here needs.
const GENEROUS: Duration = Duration::from_secs(30);

/// A host's exporter; ends when it is dropped.
struct Host {
    addr: SocketAddr,
    vitals: watch::Sender<Vitals>,
    tasks: JoinSet<()>,
}

impl Host {
    async fn ready() -> Host {
        let listener = exporter::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let vitals = watch::Sender::new(Vitals {
            beat: BootTime::now(),
            ready: Ok(()),
            place: Place::Holder,
            node_pid: Some(77),
        });
        let mut tasks = JoinSet::new();
        let metrics = Metrics::new(BootTime::now());
        let overview = watch::Sender::default().subscribe();
        let published = Published { metrics, vitals: vitals.subscribe(), overview };
        tasks.spawn(exporter::serve(listener, published));
        Host { addr, vitals, tasks }
    }

    /// With a driver that has just come round and says this.
    fn say(&self, ready: Result<(), &str>, node_pid: Option<u32>) {
        self.vitals.send_replace(Vitals {
            beat: BootTime::now(),
            ready: ready.map_err(str::to_owned),
            place: Place::Holder,
            node_pid,
        });
    }
}

async fn canary(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_baton"));
    command.arg("canary").args(args).kill_on_drop(true);
    timeout(GENEROUS, command.output()).await.expect("an end in time").expect("baton starts")
}

/// Asserts the exit code, and that one line says `words`.
async fn assert_says(addr: &str, code: i32, words: &str) {
    let output = canary(&[addr, "--timeout", "20s"]).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
    assert!(said.contains(words), "{said:?} does not say {words:?}");
}

#[tokio::test]
async fn each_thing_that_can_be_wrong_has_an_exit_code_of_its_own() {
    let mut host = Host::ready().await;
    let addr = host.addr.to_string();
    host.say(Ok(()), Some(77));
    assert_says(&addr, 0, &format!("{addr}: ready")).await;
    host.say(Err("Syncing: the chain node is syncing"), Some(77));
    assert_says(&addr, 7, "Syncing: the chain node is syncing").await;
    host.say(Err("Startup: the chain node is not running"), None);
    assert_says(&addr, 6, "the chain node is not running").await;
    host.say(Err(&format!("{NO_QUORUM} of members can be reached")), None);
    assert_says(&addr, 5, "no quorum").await;
    let long_ago = BootTime::from_nanos(BootTime::now().as_nanos().saturating_sub(60_000_000_000));
    host.vitals.send_modify(|vitals| vitals.beat = long_ago);
    assert_says(&addr, 4, "the coordinator hangs").await;
    host.tasks.shutdown().await;
    assert_says(&addr, 3, "connect").await;
}

#[tokio::test]
async fn a_host_that_accepts_and_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = silent.local_addr().expect("an address").to_string();
    let began = Instant::now();
    let output = canary(&[&addr, "--timeout", "200ms"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no answer within 200ms"));
}

#[tokio::test]
async fn another_program_at_that_address_is_no_healthy_host() {
    let other = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = other.local_addr().expect("an address").to_string();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a client");
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").expect("answered");
    });
    assert_says(&addr, 3, "this is not baton's exporter").await;
    answers.join().expect("answered");
    assert_says("nowhere", 2, "is not HOST:PORT").await;
}
