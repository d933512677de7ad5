//! What can be done to the wires between hosts, and how a command tells whoever carries them: the userspace
//! proxies on loopback, or the switch between network namespaces. One JSON line a request over a unix socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::net::proxy::Carried;

/// A direction as the cut host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    In,
    Out,
}

/// What becomes of what a slow host sends and gets. The switch delays and loses packets, and TCP does the rest; the
/// proxies carry streams, which stay in order, so that what follows a late piece waits too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// Each piece waits for up to this long,
    pub delay_ms_max: u64,
    /// and for at least this long.
    #[serde(default)]
    pub delay_ms_min: u64,
    /// This way alone is slow; both are without it.
    #[serde(default)]
    pub only: Option<Way>,
    /// So many pieces in a hundred are lost;
    pub lost_percent: u8,
    /// on a proxy the second transmission comes so much later.
    pub retransmit_ms: u64,
}

impl Slow {
    pub fn loses(self) -> bool {
        rand::random_range(0..100) < self.lost_percent
    }

    pub fn delay(self) -> Duration {
        Duration::from_millis(rand::random_range(self.delay_ms_min..=self.delay_ms_max.max(self.delay_ms_min)))
    }
}

/// How the wires are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wires {
    /// Every direction that is cut.
    pub cuts: BTreeSet<(String, Way)>,
    pub slow: BTreeMap<String, Slow>,
    /// How many pieces or packets this cost each host since its last heal: held back, lost or late.
    pub struck: BTreeMap<String, u64>,
    /// The network namespace of each host that has one of its own.
    pub namespaces: BTreeMap<String, PathBuf>,
}

impl Wires {
    /// The hosts whose cuts hold back what goes from `from` to `to`.
    pub fn cutters<'a>(&self, from: &'a str, to: &'a str) -> impl Iterator<Item = &'a str> {
        [(from, Way::Out), (to, Way::In)]
            .into_iter()
            .filter(|(host, way)| self.cuts.iter().any(|(cut, cut_way)| cut == host && cut_way == way))
            .map(|(host, _)| host)
    }

    /// Of the two ends of a flow those that are slow.
    pub fn slow_ends<'a>(&self, from: &'a str, to: &'a str) -> Vec<(&'a str, Slow)> {
        let ends = [(from, Way::Out), (to, Way::In)];
        let slow = |(host, way)| {
            Some((host, *self.slow.get(host)?)).filter(|(_, slow)| slow.only.is_none_or(|only| only == way))
        };
        ends.into_iter().filter_map(slow).collect()
    }
}

/// Answered with the [`Wires`] that are true afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    Cut {
        host: String,
        ways: Vec<Way>,
    },
    Slow {
        host: String,
        slow: Slow,
    },
    /// Nothing of the host is cut or slow.
    Heal {
        host: String,
    },
    List,
    /// Answered by the proxies with a list of [`Carried`], and by the switch with a sentence: it counts no bytes.
    Count,
}

/// Asks whoever carries the wires and listens on `socket`.
pub fn ask(socket: &Path, request: &Request) -> Result<Wires> {
    converse(socket, request)
}

/// As [`ask`], for a request with an answer of its own.
pub fn converse<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T> {
    let what = || format!("ask for the wires over {}", socket.display());
    let mut stream = StdUnixStream::connect(socket).with_context(what)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).with_context(what)?;
    writeln!(stream, "{}", serde_json::to_string(request)?).with_context(what)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).with_context(what)?;
    serde_json::from_str(&line).with_context(|| format!("{}: answered {line:?}", what()))
}

/// The wires as they are to be, and what that has cost: kept by whoever carries them, changed by [`Board::serve`].
pub struct Board {
    wires: watch::Sender<Wires>,
    struck: Mutex<BTreeMap<String, u64>>,
}

impl Board {
    pub fn new(namespaces: BTreeMap<String, PathBuf>) -> Board {
        let wires = Wires { namespaces, ..Wires::default() };
        Board { wires: watch::Sender::new(wires), struck: Mutex::default() }
    }

    pub fn watch(&self) -> watch::Receiver<Wires> {
        self.wires.subscribe()
    }

    /// A piece of `host` was held back, lost or made late.
    pub fn strike(&self, host: &str) {
        *self.struck.lock().expect("nobody panics with it").entry(host.into()).or_default() += 1;
    }

    /// Answers requests until the process is killed. The socket appears now. What was carried so far is for `count`
    /// to say.
    pub async fn serve(&self, socket: &Path, count: impl Fn() -> Result<Vec<Carried>>) -> Result<()> {
        let control = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
        loop {
            let (stream, _) = control.accept().await.context("accept a control connection")?;
            if let Err(error) = self.answer(stream, &count).await {
                eprintln!("control request: {error:#}");
            }
        }
    }

    async fn answer(&self, stream: UnixStream, count: impl Fn() -> Result<Vec<Carried>>) -> Result<()> {
        let (read, mut write) = stream.into_split();
        let Some(line) = tokio::io::BufReader::new(read).lines().next_line().await? else { bail!("empty request") };
        let request = serde_json::from_str(&line).with_context(|| format!("request {line:?}"))?;
        let text = match request {
            Request::Count => match count() {
                Ok(carried) => serde_json::to_string(&carried)?,
                Err(error) => serde_json::to_string(&error.to_string())?,
            },
            change => serde_json::to_string(&self.change(change))?,
        };
        write.write_all((text + "\n").as_bytes()).await?;
        Ok(())
    }

    /// The wires afterwards.
    fn change(&self, request: Request) -> Wires {
        self.wires.send_modify(|wires| match request {
            Request::Cut { host, ways } => wires.cuts.extend(ways.into_iter().map(|way| (host.clone(), way))),
            Request::Slow { host, slow } => drop(wires.slow.insert(host, slow)),
            Request::Heal { host } => {
                wires.cuts.retain(|(cut, _)| *cut != host);
                wires.slow.remove(&host);
                self.struck.lock().expect("nobody panics with it").remove(&host);
            }
            Request::List | Request::Count => {}
        });
        let struck = self.struck.lock().expect("nobody panics with it").clone();
        Wires { struck, ..self.wires.borrow().clone() }
    }
}
