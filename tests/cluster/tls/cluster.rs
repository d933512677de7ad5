//! Three coordinators under TLS, as `baton cert` equips them: they elect a leader, refuse a member that
//! speaks in another's name, and take new certificates up while they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baton::base::time::WallTime;
use baton::base::timing::Timing;
use baton::cluster::certificates::Facts;
use baton::cluster::transport::{self, Certificates};
use baton::cluster::wire::PROTOCOL;
use baton::cluster::wire::proto::gossip_client::GossipClient;
use baton::cluster::wire::proto::raft_client::RaftClient;
use baton::cluster::wire::proto::{Ballot, ExchangeRequest, Record, Sender, VoteRequest};
use baton::config::Tls;
use tempfile::TempDir;
use tonic::Code;

use super::certs::{admitted, baton, connect, eventually};
use crate::kit::program::{self, Running, end_with_us, free_addresses};

const IDS: [&str; 3] = ["host-a", "host-b", "host-c"];

struct Cluster {
    /// Coordinators, and host-a's guard. They end before their files go.
    processes: Vec<Running>,
    dir: TempDir,
    addrs: [String; 3],
}

impl Cluster {
    /// Certificates by the commands of the manual, files where it says.
    fn start() -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let certs = dir.path().join("certs");
        let at = certs.to_str().expect("UTF-8");
        assert!(baton(&["cert", "ca", "--dir", at]).status.success());
        let mut cluster = Cluster { dir, addrs: free_addresses(), processes: Vec::new() };
        for id in IDS {
            let issued = baton(&["cert", "issue", id, "--addr", "127.0.0.1", "--dir", at]);
            assert!(issued.status.success(), "{issued:?}");
            let said = String::from_utf8(issued.stdout).expect("UTF-8");
            let section = said.split_once("[tls]").and_then(|(_, rest)| rest.split_once("\n\n")).expect("a section").0;
            let home = cluster.home(id);
            fs::create_dir_all(home.join("home")).expect("a directory");
            for file in ["ca.pem", &format!("{id}.pem"), &format!("{id}.key")] {
                fs::copy(certs.join(file), home.join(file)).expect("copied");
            }
            fs::write(home.join("baton.toml"), cluster.config(id, section)).expect("written");
        }
        let guard = cluster.run_guard("host-a");
        cluster.processes.push(guard);
        cluster.processes.extend(IDS.map(|id| cluster.run(id)));
        cluster
    }

    fn home(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    fn addr(&self, id: &str) -> &str {
        &self.addrs[IDS.iter().position(|known| *known == id).expect("a member")]
    }

    fn files(&self, id: &str) -> Tls {
        let path = |file: &str| self.home(id).join(file);
        Tls { ca: path("ca.pem"), cert: path(&format!("{id}.pem")), key: path(&format!("{id}.key")) }
    }

    /// host-a validates, with a chain node that does nothing.
    fn config(&self, id: &str, tls: &str) -> String {
        let [a, b, c] = IDS.map(|id| self.addr(id));
        let chain = "[chain]\ndriver = \"generic\"\nhome = \"home\"\ncommand = [\"sleep\", \"1000\"]\n\
                     [chain.activate]\nhow = \"exec\"\nactivate = [\"true\"]\ndeactivate = [\"true\"]\n\
                     [chain.probe]\nexec = [\"true\"]\n";
        format!(
            "[member]\nid = \"{id}\"\nstate_dir = \"state\"\nrun_dir = \"run\"\n[cluster]\nname = \"one\"\n\
             listen = \"{}\"\nmembers = [\n  {{ id = \"host-a\", addr = \"{a}\" }},\n  \
             {{ id = \"host-b\", addr = \"{b}\", role = \"arbiter\" }},\n  \
             {{ id = \"host-c\", addr = \"{c}\", role = \"arbiter\" }},\n]\n[timing]\nprofile = \"wan\"\n[tls]{tls}\n{}",
            self.addr(id),
            if id == "host-a" { chain } else { "" }
        )
    }

    fn run(&self, id: &str) -> Running {
        let mut command = program::baton(&["run", "--config"]);
        command.arg(self.home(id).join("baton.toml"));
        self.spawn(id, "log", command)
    }

    /// One that the coordinator finds and does not start, since what it starts outlives it.
    fn run_guard(&self, id: &str) -> Running {
        let run_dir = self.home(id).join("run");
        fs::create_dir_all(&run_dir).expect("a directory");
        let mut command = program::command(env!("CARGO_BIN_EXE_baton-guard"));
        let socket = run_dir.join("guard.sock");
        command.arg("--socket").arg(&socket);
        let guard = self.spawn(id, "guard.log", command);
        let began_at = std::time::Instant::now();
        while !socket.exists() {
            assert!(began_at.elapsed() < super::certs::LONG, "the guard does not serve");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        guard
    }

    /// Dies with the thread that starts it.
    fn spawn(&self, id: &str, log: &str, mut command: Command) -> Running {
        let log = fs::File::create(self.home(id).join(log)).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        end_with_us(&mut command);
        Running(command.spawn().expect("it starts"))
    }

    fn log(&self, id: &str) -> String {
        fs::read_to_string(self.home(id).join("log")).expect("a log")
    }

    fn status(&self, id: &str) -> serde_json::Value {
        let socket = self.home(id).join("run/admin.sock");
        let output = baton(&["status", "--json", "--socket", socket.to_str().expect("UTF-8")]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// All reach all and know one leader.
    async fn is_whole(&self) {
        let whole = |id: &&str| {
            let status = self.status(id);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            status["leader"].is_string() && members.iter().filter(|member| member["reachable"] == true).count() == 3
        };
        let began_at = std::time::Instant::now();
        while !IDS.iter().all(whole) {
            let logs: Vec<String> = IDS.iter().map(|id| self.log(id)).collect();
            assert!(began_at.elapsed() < super::certs::LONG, "no cluster came about:\n{}", logs.join("\n---\n"));
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// What `id` shows to whoever connects with `as_whom`'s certificate.
    async fn shown(&self, id: &str, as_whom: &str) -> Facts {
        let files = self.files(as_whom);
        let stream = connect(self.addr(id), Some(&files), &files.ca).await.expect("it listens");
        let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
        Facts::read(&shown).expect("a name")
    }
}

/// Given to host-b, which passes them on to whoever has to do with them.
fn orders_of_an_admin_stand_in_the_log(cluster: &Cluster) {
    let certs = cluster.dir.path().join("certs");
    let at = |file: &str| certs.join(file).to_str().expect("UTF-8").to_owned();
    assert!(baton(&["cert", "issue", "--admin", "ops", "--dir", certs.to_str().expect("UTF-8")]).status.success());
    let (ca, cert, key) = (at("ca.pem"), at("admin-ops.pem"), at("admin-ops.key"));
    let by_admin = |args: &[&str]| {
        let files = ["--addr", cluster.addr("host-b"), "--ca", &ca, "--cert", &cert, "--key", &key];
        baton(&[args, &files].concat())
    };
    let status = by_admin(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!((&status["cluster"], &status["member"]), (&"one".into(), &"host-b".into()));
    let paused = by_admin(&["pause"]);
    assert!(paused.status.success() && paused.stdout.starts_with(b"paused: "), "{paused:?}");
    assert!(by_admin(&["resume"]).status.success());
    // There is no other validator.
    let refused = by_admin(&["handover", "--to", "host-c"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let log = cluster.log("host-b");
    for line in [
        "admin ops orders: pause",
        "the order of admin ops is done: pause",
        "admin ops orders: resume",
        "admin ops orders: handover to \"host-c\"",
        "the order of admin ops is not done: handover to \"host-c\": ",
    ] {
        assert!(log.contains(line), "{line}:\n{log}");
    }
}

fn sender(member: &str) -> Option<Sender> {
    Some(Sender {
        cluster: "one".into(),
        member: member.into(),
        incarnation: 1,
        protocol: PROTOCOL,
        knows: 1,
        founders: 0,
        session: 0,
        start: 0,
    })
}

fn replace(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).expect("copied");
    fs::rename(beside, to).expect("renamed");
}

// As one test: a cluster takes its time to come up on a machine that is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_under_tls_elect_refuse_impostors_and_renew_while_they_run() {
    let cluster = Cluster::start();
    cluster.is_whole().await;

    // Neither a vote nor a record of a under c's certificate is listened to.
    let c = Certificates::read(&cluster.files("host-c"), &"host-c".into()).expect("good certificates");
    let toward = Some(c.toward(&"host-b".into()));
    let to_b = transport::channel(cluster.addr("host-b"), toward, &Timing::WAN).expect("an address");
    let ballot = Ballot { term: 1_000, candidate: "host-a".into(), committed: false };
    let vote = VoteRequest { sender: sender("host-a"), ballot: Some(ballot), ..VoteRequest::default() };
    let refused = RaftClient::new(to_b.clone()).vote(vote).await.expect_err("no vote");
    let reason = "member host-c speaks as member host-a; a certificate speaks for its own member alone";
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, reason));
    let record = Record { member: "host-a".into(), generation: u64::MAX, ..Record::default() };
    let push = ExchangeRequest { sender: sender("host-a"), records: vec![record], ..ExchangeRequest::default() };
    let refused = GossipClient::new(to_b).exchange(push).await.expect_err("no record");
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, reason));

    orders_of_an_admin_stand_in_the_log(&cluster);

    // A garbled certificate is left aside, the old one goes on.
    let (files, before) = (cluster.files("host-b"), cluster.shown("host-b", "host-a").await);
    fs::write(&files.cert, "garbled").expect("written");
    eventually("the garbled file is noticed", || cluster.log("host-b").contains("left aside")).await;
    assert_eq!(cluster.shown("host-b", "host-a").await, before);

    // A renewed pair is taken up, by both ends of new connections.
    let certs = cluster.dir.path().join("certs");
    let at = certs.to_str().expect("UTF-8");
    let renew = ["cert", "issue", "host-b", "--addr", "127.0.0.1", "--dir", at, "--days", "400", "--replace"];
    assert!(baton(&renew).status.success());
    replace(&certs.join("host-b.pem"), &files.cert);
    replace(&certs.join("host-b.key"), &files.key);
    eventually("the new pair is taken up", || cluster.log("host-b").contains("certificates were replaced")).await;
    let renewed = cluster.shown("host-b", "host-a").await;
    assert!(renewed.until > before.until && renewed.until > WallTime::now(), "{renewed:?} after {before:?}");
    assert_eq!(admitted(cluster.addr("host-a"), Some(&files), &files.ca).await, Ok(()), "b's new one is good at a");
    cluster.is_whole().await;
}
