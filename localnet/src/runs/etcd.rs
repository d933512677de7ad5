//! What a user would pick instead of baton: three etcd members, and on each host that may validate `etcdctl lock`
//! with a lease of ten seconds, which runs the chain node with the key for as long as it has the lock. The chain
//! around it, and its wires, are those of every network of the localnet; the members of etcd reach each other
//! directly, since all of them must agree on one address of each. Called by bench.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::chains::sim;
use crate::hosts::faults::{self, What};
use crate::judge::status::{POLL_EVERY, run_bounded};
use crate::net::{Host, Net, Shape};
use crate::process::launch;
use crate::process::procs::{Proc, describe, marked};
use crate::runs::demo::Pair;

const LOCK: &str = "validator";
/// etcd grants whole seconds, and no lease shorter than two of its election timeouts. Ten is what etcdctl takes.
const LEASE: Duration = Duration::from_secs(10);
/// A lease that nobody renews any more counts anew after a change of etcd's leader.
const READY_BOUND: Duration = Duration::from_secs(60);
const ANSWER_BOUND: Duration = Duration::from_secs(3);

/// A network in which etcd hands the key around.
pub struct EtcdNet {
    pub net: Net,
    etcd: PathBuf,
    etcdctl: PathBuf,
}

/// A program of the packages, or how to get it.
fn find(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not on PATH; install it with `apt-get install {package}`"))
}

impl EtcdNet {
    /// The programs are there.
    ///
    /// # Errors
    /// Names the one that is missing and its package.
    pub fn check_programs() -> Result<()> {
        find("etcd", "etcd-server").and(find("etcdctl", "etcd-client")).map(drop)
    }

    /// The chain, the members of etcd and the candidates run under `dir`, and one of them holds the lock.
    pub fn up(dir: &Path, shape: Shape) -> Result<EtcdNet> {
        let (etcd, etcdctl) = (find("etcd", "etcd-server")?, find("etcdctl", "etcd-client")?);
        let this = EtcdNet { net: launch::prepare(dir, shape)?, etcd, etcdctl };
        launch::start_wires(&this.net)?;
        launch::start_validators(&this.net)?;
        for host in this.net.signers() {
            sim::give_shared_key(&this.net, &host.id)?;
        }
        this.with_diagnosis(this.await_ready())?;
        Ok(this)
    }

    /// Starts what is missing, as the hosts' service managers would, and waits until one host runs the chain node
    /// and every other that may waits for the lock.
    pub fn await_ready(&self) -> Result<Pair> {
        let deadline = Instant::now() + READY_BOUND;
        loop {
            self.start_missing()?;
            let seen = match self.waiting() {
                Ok(waiting) => {
                    let with_node = |host: &&Host| !faults::of_host(&self.net, &host.id, What::Node).is_empty();
                    let (holders, others): (Vec<&Host>, Vec<&Host>) = self.net.signers().partition(with_node);
                    if let ([holder], [standby, ..]) = (&holders[..], &others[..])
                        && waiting == self.net.signers().count()
                    {
                        return Ok(Pair { holder: holder.id.clone(), standby: standby.id.clone() });
                    }
                    format!("{waiting} hold or await the lock, {} run a chain node", holders.len())
                }
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!(
                    "one host has the lock and the others wait for it: not within {READY_BOUND:?}; last seen: {seen}"
                );
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    fn start_missing(&self) -> Result<()> {
        for host in &self.net.hosts {
            if !self.of_host(&host.id).iter().any(|proc| proc.program() == "etcd") {
                launch::spawn(&self.net, self.member(host), &host.id, &self.log(&host.id, "etcd.log"), None)?;
            }
        }
        for host in self.net.signers() {
            // A node that outlived its etcdctl keeps the ports; a service manager would not start a second one.
            if self.of_host(&host.id).iter().all(|proc| proc.program() == "etcd") {
                launch::spawn(&self.net, self.candidate(host), &host.id, &self.log(&host.id, "lock.log"), None)?;
            }
        }
        Ok(())
    }

    /// The running processes of a host.
    pub fn of_host(&self, id: &str) -> Vec<Proc> {
        faults::of_host(&self.net, id, What::Host)
    }

    /// The candidate of a host and its chain node: what an operator has in one service.
    pub fn service(&self, id: &str) -> Vec<Proc> {
        self.of_host(id).into_iter().filter(|proc| proc.program() != "etcd").collect()
    }

    fn member(&self, host: &Host) -> Command {
        let url = |addr: SocketAddr| format!("http://{addr}");
        let (client, peer) = (url(host.metrics()), url(host.raft()));
        let cluster: Vec<String> = self.net.hosts.iter().map(|h| format!("{}={}", h.id, url(h.raft()))).collect();
        let mut command = Command::new(&self.etcd);
        command.args(["--name", &host.id]).arg("--data-dir").arg(self.net.host_dir(&host.id).join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        command
    }

    /// The chain node with the key, run under the lock; its home is kept from one time to the next.
    fn candidate(&self, host: &Host) -> Command {
        let (id, home) = (&host.id, self.net.chain_home(&host.id));
        let node = sim::node_command(&self.net, id, &home, host.rpc(), host.p2p());
        let mut command = self.etcdctl(id);
        command.args(["lock", "--ttl", &LEASE.as_secs().to_string(), LOCK, "--"]);
        command.arg(node.get_program()).args(node.get_args());
        command
    }

    /// Asks the member on the same host first.
    fn etcdctl(&self, id: &str) -> Command {
        let (own, others): (Vec<&Host>, Vec<&Host>) = self.net.hosts.iter().partition(|host| host.id == id);
        let urls = own.into_iter().chain(others).map(|host| format!("http://{}", host.metrics()));
        let mut command = Command::new(&self.etcdctl);
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(urls.collect::<Vec<_>>().join(","));
        command
    }

    /// How many hold the lock or stand in its queue.
    fn waiting(&self) -> Result<usize> {
        let mut command = self.etcdctl("");
        command.args(["get", "--prefix", "--keys-only"]).arg(format!("{LOCK}/"));
        let answer = run_bounded(command, ANSWER_BOUND)?;
        if answer.code != Some(0) {
            bail!("etcdctl get: {}", answer.stderr.lines().last().unwrap_or("no answer"));
        }
        Ok(answer.stdout.lines().filter(|line| !line.is_empty()).count())
    }

    fn log(&self, id: &str, name: &str) -> PathBuf {
        self.net.host_dir(id).join(name)
    }

    /// Adds to an error what runs, and the ends of the logs.
    pub fn with_diagnosis<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let mut text = format!("{error:#}\nrunning: {}", describe(&marked(&self.net.dir)));
            for (host, name) in self.net.hosts.iter().flat_map(|h| [(h, "etcd.log"), (h, "lock.log")]) {
                let file = self.log(&host.id, name);
                if let Ok(end) = launch::tail(&file, 8) {
                    text += &format!("\n--- {}\n{end}", file.display());
                }
            }
            anyhow::Error::msg(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ChainKind, Programs};

    #[test]
    fn a_candidate_runs_the_chain_node_of_its_host_under_the_lock_and_asks_its_own_member_first() {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        let this = EtcdNet { net, etcd: "/e/etcd".into(), etcdctl: "/e/etcdctl".into() };
        let host = &this.net.hosts[1];
        let args: Vec<String> = this.candidate(host).get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert!(args[1].starts_with(&format!("http://127.0.0.1:{},", host.metrics_port)), "{args:?}");
        assert_eq!(args[2..8].join(" "), "lock --ttl 10 validator -- /b/simchain", "{args:?}");
        let home = this.net.chain_home("host-b").display().to_string();
        assert!(args[8..].contains(&home) && args[8..].contains(&"host-b".to_string()), "{args:?}");
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let error = format!("{:#}", find("no-such-etcd", "etcd-server").unwrap_err());
        assert_eq!(error, "no-such-etcd is not on PATH; install it with `apt-get install etcd-server`");
    }
}
