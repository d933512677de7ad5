//! A browser without a screen, spoken to over a pipe in the DevTools protocol: JSON, each message ended by a zero byte.
//! It ends with this process, since it then loses the pipe. It notes all that a page tried to load, said or was
//! refused.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// For an answer, and for the first one of a browser that starts on a busy machine.
const ANSWER_BOUND: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// DevTools reads from descriptor 3 and writes to 4; they are the shell's own two here.
const ON_THE_PIPE: &str = "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$@\"";

pub struct Browser {
    child: Child,
    input: ChildStdin,
    heard: Receiver<Value>,
    /// Of the page; commands go to it.
    session: String,
    last_id: u64,
    /// All that happened, the oldest first.
    events: Vec<Value>,
    profile: TempDir,
}

impl Browser {
    /// Of `CHROMIUM`, or of the PATH, with an empty page. Its family carries `marker`, a variable and its value.
    pub fn start(marker: (&str, &Path)) -> Browser {
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let found = Command::new(&program).arg("--version").stderr(Stdio::null()).output();
        let found = found.is_ok_and(|version| version.status.success());
        assert!(found, "{program} does not run; install the package chromium, or name another one in CHROMIUM");
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut command = Command::new("sh");
        command.args([
            "-c",
            ON_THE_PIPE,
            "sh",
            &program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ]);
        command.args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]);
        command.args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.env(marker.0, marker.1).process_group(0);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (told, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for message in output.split(0) {
                let Ok(message) = message else { return };
                let message = serde_json::from_slice(&message).expect("JSON of the browser");
                if told.send(message).is_err() {
                    return;
                }
            }
        });
        let session = String::new();
        let mut browser = Browser { child, input, heard, session, last_id: 0, events: Vec::new(), profile };
        let targets = browser.call("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().expect("targets").iter().find(|target| target["type"] == "page");
        let page = page.expect("the empty page")["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": page, "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// The answer to one command.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).unwrap_or_else(|error| panic!("{method}: the browser is gone: {error}"));
        let begun = Instant::now();
        loop {
            let left = ANSWER_BOUND.saturating_sub(begun.elapsed());
            let heard = self.heard.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: no answer: {error}"));
            if heard["id"] == self.last_id {
                assert!(heard.get("error").is_none(), "{method}: {}", heard["error"]);
                return heard["result"].clone();
            }
            self.events.push(heard);
        }
    }

    /// The page at `url` is loaded.
    pub fn open(&mut self, url: &str) {
        let before = self.count("Page.loadEventFired");
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.await_count("Page.loadEventFired", before + 1, ANSWER_BOUND);
    }

    /// What `expression` is on the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until `expression` is `wanted`.
    #[track_caller]
    pub fn await_value(&mut self, expression: &str, wanted: &Value, bound: Duration) {
        let begun = Instant::now();
        loop {
            let is = self.value(expression);
            if is == *wanted {
                return;
            }
            assert!(begun.elapsed() < bound, "{expression} is {is} and not {wanted} after {bound:?}: {}", self.text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// All that is to be read on the page.
    pub fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// The document as it stands, asked for without running anything on the page.
    pub fn markup(&mut self) -> String {
        let root = self.call("DOM.getDocument", json!({ "depth": 0 }))["root"]["nodeId"].clone();
        self.call("DOM.getOuterHTML", json!({ "nodeId": root }))["outerHTML"].as_str().unwrap_or_default().to_owned()
    }

    /// A screen of this width, and as high as the page.
    pub fn resize(&mut self, width: u32, scale: f64) {
        let mobile = width < 600;
        let metrics =
            |height: u64| json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", metrics(640));
        let height = self.value("Math.ceil(document.documentElement.getBoundingClientRect().height)").as_u64();
        self.call("Emulation.setDeviceMetricsOverride", metrics(height.unwrap_or(640)));
    }

    /// What the browser says that its user prefers, such as `prefers-color-scheme: dark`.
    pub fn prefer(&mut self, features: &[(&str, &str)]) {
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The upper part of the page as a PNG file, in base64.
    pub fn picture(&mut self, height_max: u32) -> String {
        let [width, height] = ["innerWidth", "innerHeight"].map(|size| self.value(size).as_u64().unwrap_or_default());
        let height = height.min(u64::from(height_max));
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png", "clip": clip }));
        taken["data"].as_str().expect("a picture").to_owned()
    }

    /// Every address that a page wanted something from.
    pub fn asked_for(&mut self) -> Vec<String> {
        self.listen();
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Errors and warnings of pages, of their console, and of the policies that they were under.
    pub fn complaints(&mut self) -> Vec<String> {
        self.listen();
        let complaint = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" | "Audits.issueAdded" => true,
            "Runtime.consoleAPICalled" => {
                ["error", "warning", "assert"].iter().any(|kind| event["params"]["type"] == *kind)
            }
            "Log.entryAdded" => ["error", "warning"].iter().any(|level| event["params"]["entry"]["level"] == *level),
            _ => false,
        };
        self.events.iter().filter(complaint).map(Value::to_string).collect()
    }

    pub fn count(&mut self, method: &str) -> usize {
        self.listen();
        self.events.iter().filter(|event| event["method"] == method).count()
    }

    #[track_caller]
    pub fn await_count(&mut self, method: &str, wanted: usize, bound: Duration) {
        let begun = Instant::now();
        while self.count(method) < wanted {
            assert!(begun.elapsed() < bound, "{wanted} times {method}, and it was {}", self.count(method));
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes note of what has happened.
    fn listen(&mut self) {
        self.events.extend(self.heard.try_iter());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its profile goes once none of its processes writes there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(self.profile.path());
    }
}
