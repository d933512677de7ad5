//! A network for one test: brought up by the command line as an operator would, and gone with the test,
//! however the test ends. Networks run one at a time, for they are measured on the same few cores.

#![allow(dead_code)] // Every test file uses a part of this.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};

use localnet::check::check;
use localnet::demo::{Pair, await_pair};
use localnet::keeper::Keeper;
use localnet::launch::diagnosis;
use localnet::net::Net;
use tempfile::TempDir;

pub const LOCALNET: &str = env!("CARGO_BIN_EXE_localnet");

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder in which at most this test's network runs.
pub struct Ground {
    // Dropped in this order: first the network ends, then its files go.
    keeper: Option<Keeper>,
    temp: TempDir,
    pub dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Ground {
    pub fn new() -> Ground {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap().join("net");
        std::fs::create_dir(&dir).unwrap();
        let keeper = Some(Keeper::start(Path::new(LOCALNET), &dir).unwrap());
        Ground { keeper, temp, dir, _turn: turn }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LOCALNET);
        command.arg("--dir").arg(&self.dir).args(args).stdin(Stdio::null());
        command
    }

    /// Runs to the end and takes any exit code.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs to the end; returns standard output.
    pub fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "localnet {args:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    pub fn net(&self) -> Net {
        Net::load(&self.dir).unwrap()
    }
}

/// A network that is up.
pub struct TestNet {
    pub ground: Ground,
    pub net: Net,
}

impl TestNet {
    pub fn up(args: &[&str]) -> TestNet {
        let ground = Ground::new();
        ground.succeed(&[&["up"], args].concat());
        let net = ground.net();
        TestNet { ground, net }
    }

    /// Once one host is Active and the other a ready standby.
    pub fn pair(&self) -> Pair {
        self.or_logs(await_pair(&self.net, |_| ()))
    }

    /// The value, or a failure that shows what runs and the ends of the logs.
    pub fn or_logs<T>(&self, result: anyhow::Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", diagnosis(&self.net)))
    }

    /// By the checker, over everything signed since the start.
    pub fn assert_nothing_signed_twice(&self) {
        let verdict = self.or_logs(check(&self.net));
        assert!(verdict.is_clean(), "{verdict}\n{}", diagnosis(&self.net));
    }
}
