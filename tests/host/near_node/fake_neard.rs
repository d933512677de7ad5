//! A process that does what was measured of a real neard, as far as baton meets it: no handler for SIGHUP in its first
//! 0.3 s, a reload that is all or nothing, a key that stays after a refused one, a SIGTERM that is lost while a reload
//! makes the handlers anew, work on the chain some time after its key is loaded. Files in its home make it worse:
//! `deaf` (SIGHUP changes nothing), `slow-handlers` (they come only after a SIGTERM was lost), `ends` (it ends at once
//! with these words), `stubborn` (SIGTERM changes nothing), `idle` (nothing it signs reaches the chain), `late` (with a
//! key it does not listen while the file is there), `lent` (a key that it takes wherever the links lead), `foreign`
//! (another node signs with the key, a chunk a block), `loads-late` (a key is there long after the reload that read it), `mute` (its `/metrics` tell nothing of approvals), `slow` (it
//! gives up no height while the file is there), `turn` (another number than `TURN`). What it signs is an event, by the facts in `slots.rs`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use baton::base::time::WallTime;
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep};

use super::slots::{Signed, Slots};
use crate::kit::fake_node::{Answer, FakeNode};

pub const ADDR: &str = "FAKE_NEARD_ADDR";
/// A file of what the chain brings, a line each: `block HEIGHT NANOSECONDS`, or `skip` for a height that is given up.
/// Without it a block comes every 100 ms.
pub const CHAIN: &str = "FAKE_NEARD_CHAIN";
/// As NEAR's.
pub const SLOT: Duration = Duration::from_millis(600);
/// The account has a chunk to make at every so many heights, by what its maintenance windows tell.
pub const TURN: u64 = 8;
const WINDOWS: &str = "EXPERIMENTAL_maintenance_windows";
/// How far back a pace is measured.
const PACE_BLOCKS: u64 = 100;
/// Without a handler for any signal.
const DEAF_FOR: Duration = Duration::from_millis(300);
/// From a reload to the new handlers: a SIGTERM that comes meanwhile is lost.
const LOSES_TERM_FOR: Duration = Duration::from_millis(6);
/// From SIGTERM to the end, with all connections open.
pub const ENDS_IN: Duration = Duration::from_millis(600);
/// From the reload to the key, with `loads-late`.
const LOADS_IN: Duration = Duration::from_secs(2);
/// From a loaded key to the first chunk on the chain.
pub const FIRST_CHUNK_AFTER: Duration = Duration::from_millis(900);
/// No test takes so long; nothing outlives it by more.
const LIFE_MAX: Duration = Duration::from_secs(120);
const STATUS: &str = include_str!("../../data/near-status.json");
const REFUSED: &str = "2026-06-01T10:00:00.000000Z  WARN neard: Dynamically updatable configs are not valid. Please fix this \
                       ASAP otherwise the node will be unable to restart: [ConfigFileError { file: \"config.json\", err: \
                       Failed to deserialize config";

struct Neard {
    home: PathBuf,
    http: FakeNode,
    key: Option<String>,
    loaded_at: Option<Instant>,
    /// Keys that were read, and when they are loaded.
    loading: VecDeque<(Instant, Option<String>)>,
    config_correct: bool,
    /// When the handlers are there again.
    hears_term_at: Instant,
    /// They come after the next SIGTERM.
    loses_next_term: bool,
    chunks: u64,
    asked: bool,
    /// How many of its requests were looked at.
    heard: usize,
    slots: Slots,
    head_time: WallTime,
    /// The file of `CHAIN`, and how many of its lines were played.
    chain: Option<(PathBuf, usize)>,
}

/// Runs in the current folder until it is told to end.
pub async fn run(addr: &str) {
    let home = std::env::current_dir().expect("a home");
    let key = read_key(&home);
    let limit = getrlimit(Resource::Nofile);
    let config = std::fs::read_to_string(home.join("config.json")).expect("config");
    let config: Value = serde_json::from_str(&config).unwrap_or_else(|problem| {
        println!("Error: {REFUSED}\n\nCaused by:\n    {problem}");
        std::process::exit(1);
    });
    let node_key = std::fs::read_to_string(home.join("node_key.json")).unwrap_or_default();
    event(
        &home,
        &format!(
            "start key={} addr={} node={} files={:?}/{:?}",
            key.as_deref().unwrap_or("-"),
            config["network"]["addr"].as_str().unwrap_or("-"),
            node_key.trim(),
            limit.current,
            limit.maximum
        ),
    );
    if let Ok(last_words) = std::fs::read_to_string(home.join("ends")) {
        print!("{last_words}");
        std::process::exit(3);
    }
    sleep(DEAF_FOR).await;
    while key.is_some() && home.join("late").exists() {
        sleep(Duration::from_millis(10)).await;
    }
    let (mut hangup, mut terminate) =
        (signal(SignalKind::hangup()).expect("a handler"), signal(SignalKind::terminate()).expect("a handler"));
    let http = FakeNode::start_at(addr, "/status", Answer::CloseAtOnce).await;
    let loaded_at = key.is_some().then(Instant::now);
    let mut slots = read_database(&home);
    slots.has_key = key.is_some();
    let mut neard = Neard {
        home,
        http,
        key,
        loaded_at,
        loading: VecDeque::new(),
        config_correct: true,
        hears_term_at: Instant::now(),
        loses_next_term: false,
        chunks: 30,
        asked: false,
        heard: 0,
        slots,
        head_time: WallTime::from_nanos(0),
        chain: std::env::var_os(CHAIN).map(|path| (PathBuf::from(path), 0)),
    };
    neard.sync();
    neard.answer();
    let end = Instant::now() + LIFE_MAX;
    let mut ending = None;
    let mut tick = interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            _ = hangup.recv() => neard.reload(),
            _ = terminate.recv() => {
                if neard.loses_term() {
                    event(&neard.home, "SIGTERM lost");
                    continue;
                }
                event(&neard.home, "term");
                if !neard.is("stubborn") {
                    ending.get_or_insert(Instant::now() + ENDS_IN);
                }
            }
            _ = tick.tick() => {
                while let Some((_, key)) = neard.loading.pop_front_if(|(at, _)| *at <= Instant::now()) {
                    neard.load(key);
                }
                neard.follow();
                neard.answer();
            }
        }
        if Instant::now() >= ending.unwrap_or(end) {
            event(&neard.home, "end");
            return;
        }
    }
}

impl Neard {
    fn is(&self, how: &str) -> bool {
        self.home.join(how).exists()
    }

    fn loses_term(&mut self) -> bool {
        std::mem::take(&mut self.loses_next_term) || Instant::now() < self.hears_term_at
    }

    fn reload(&mut self) {
        self.hears_term_at = Instant::now() + LOSES_TERM_FOR;
        self.loses_next_term = self.is("slow-handlers");
        if self.is("deaf") {
            return event(&self.home, "hup ignored");
        }
        let config = std::fs::read_to_string(self.home.join("config.json")).unwrap_or_default();
        let problem = serde_json::from_str::<Value>(&config).err();
        self.config_correct = problem.is_none();
        if let Some(problem) = problem {
            println!("{REFUSED}\n\nCaused by:\n    {problem} }}]");
            return event(&self.home, "hup refused");
        }
        let key = read_key(&self.home);
        if self.is("loads-late") {
            event(&self.home, &format!("hup reads {}", key.as_deref().unwrap_or("-")));
            return self.loading.push_back((Instant::now() + LOADS_IN, key));
        }
        self.load(key);
    }

    fn load(&mut self, key: Option<String>) {
        self.key = key;
        self.loaded_at = self.key.is_some().then(Instant::now);
        self.slots.has_key = self.key.is_some();
        event(&self.home, &format!("hup key={}", self.key.as_deref().unwrap_or("-")));
        self.answer();
    }

    /// What came while it did not run is history: nothing of it is approved or given up.
    fn sync(&mut self) {
        let key = std::mem::take(&mut self.slots.has_key);
        for line in self.news() {
            if let Some((height, time)) = block(&line) {
                let _ = self.slots.accept(height);
                self.head_time = time;
            }
        }
        self.slots.has_key = key;
    }

    fn follow(&mut self) {
        for line in self.news() {
            match block(&line) {
                Some((height, time)) => {
                    self.head_time = time;
                    let chunk = self.slots.accept(height);
                    self.sign(chunk);
                    let endorsement = self.slots.endorse();
                    self.sign(endorsement);
                }
                None if self.is("slow") => {}
                None => {
                    let skip = self.slots.skip();
                    self.sign(skip);
                }
            }
        }
    }

    /// What the chain has brought since the last look.
    fn news(&mut self) -> Vec<String> {
        let Some((path, played)) = &mut self.chain else {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            return vec![format!("block {} {}", now.as_millis() / 100, now.as_nanos())];
        };
        let text = std::fs::read_to_string(path).expect("the chain");
        // The last line may be in the making.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<String> = whole.lines().skip(*played).map(str::to_owned).collect();
        *played += lines.len();
        lines
    }

    /// The database has it before it leaves: one write in place, which no kill halves and no disk that hangs holds.
    fn sign(&self, signed: Option<Signed>) {
        let Slots { head, gauge, .. } = self.slots;
        let database =
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.home.join("database"));
        database.expect("a database").write_all(format!("{head:020} {gauge:020}").as_bytes()).expect("written");
        if let Some(signed) = signed.filter(|_| self.chain.is_some()) {
            event(&self.home, &format!("signs {signed}"));
        }
    }

    fn answer(&mut self) {
        let mut status: Value = serde_json::from_str(STATUS).expect("a status");
        let head = self.slots.head;
        status["sync_info"]["latest_block_time"] = self.head_time.to_string().into();
        status["sync_info"]["latest_block_height"] = head.into();
        status["validator_account_id"] = json!(self.key);
        status["validator_public_key"] = json!(self.key.as_ref().map(|_| "ed25519:x"));
        self.http.answer("/status", Answer::Body(status.to_string()));
        let mut metrics = format!("near_config_correct {}\n", u8::from(self.config_correct));
        if !self.is("mute") {
            writeln!(metrics, "near_largest_target_height {}", self.slots.gauge).expect("a line");
        }
        self.http.answer("/metrics", Answer::Body(metrics));
        if self.loaded_at.is_some_and(|at| at.elapsed() >= FIRST_CHUNK_AFTER) && !self.is("idle") {
            self.chunks = 31;
        }
        self.hear();
        let foreign = if self.is("foreign") { head } else { 0 };
        let ours =
            json!({ "account_id": "node3", "num_produced_blocks": 7, "num_produced_chunks": self.chunks + foreign });
        let result = json!({ "epoch_start_height": 1, "current_validators": [ours] });
        self.http.answer("/#validators", Answer::Body(json!({ "result": result }).to_string()));
        self.answer_windows();
    }

    /// What it was asked since the last look. For validators it is asked again and again.
    fn hear(&mut self) {
        let requests = self.http.requests_from(self.heard);
        self.heard += requests.len();
        if !self.asked && requests.iter().any(|request| request.contains("\"validators\"")) {
            self.asked = true;
            event(&self.home, "asked for validators");
        }
        for _ in requests.iter().filter(|request| request.contains(WINDOWS)) {
            event(&self.home, &format!("asked for windows at {}", self.slots.head));
        }
    }

    /// Of the present turn and the next two, the heights at which the account has no chunk to make. The pace is that of
    /// NEAR, by the head and the block of `PACE_BLOCKS` before it.
    fn answer_windows(&self) {
        let head = self.slots.head;
        let told = std::fs::read_to_string(self.home.join("turn"));
        let length = told.map_or(TURN, |told| told.trim().parse().expect("a number"));
        let turns = (0..3).map(|turn| (head / length + turn) * length);
        let windows: Vec<[u64; 2]> = turns.map(|chunk| [chunk + 1, chunk + length]).collect();
        self.http.answer(&format!("/#{WINDOWS}"), Answer::Body(json!({ "result": windows }).to_string()));
        let then = self.head_time.as_nanos().saturating_sub(head.min(PACE_BLOCKS) * SLOT.as_nanos() as u64);
        let header = json!({ "header": { "timestamp_nanosec": then.to_string() } });
        self.http.answer("/#block", Answer::Body(json!({ "result": header }).to_string()));
    }
}

/// Height and time, if `line` of the chain brings a block.
fn block(line: &str) -> Option<(u64, WallTime)> {
    let mut words = line.strip_prefix("block ")?.split(' ').map(|word| word.parse().expect("a number"));
    Some((words.next().expect("a height"), WallTime::from_nanos(words.next().expect("a time"))))
}

fn read_database(home: &Path) -> Slots {
    let text = std::fs::read_to_string(home.join("database")).unwrap_or_else(|_| "0 0".to_owned());
    let (head, gauge) = text.split_once(' ').expect("two numbers");
    Slots::of_database(head.parse().expect("a head"), gauge.parse().expect("a gauge"))
}

fn read_key(home: &Path) -> Option<String> {
    let lent = std::fs::read_to_string(home.join("lent")).ok();
    let text = lent.or_else(|| std::fs::read_to_string(home.join("validator_key.json")).ok())?;
    let key: Value = serde_json::from_str(&text).expect("a key");
    Some(key["account_id"].as_str().expect("an account").to_owned())
}

/// What the tests read.
fn event(home: &Path, what: &str) {
    let mut line = String::new();
    // Its own number is that of its PID namespace. /proc is the host's.
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a process");
    writeln!(line, "{} {what}", stat.split(' ').next().expect("a number")).expect("a line");
    let file = std::fs::OpenOptions::new().append(true).create(true).open(home.join("events"));
    std::io::Write::write_all(&mut file.expect("events"), line.as_bytes()).expect("written");
}
