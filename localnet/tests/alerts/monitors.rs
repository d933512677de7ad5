//! Real Prometheus and Alertmanager beside a network, with the files of `deploy/prometheus`: in them only addresses are
//! replaced. They end with the network.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use localnet::hosts::make_dir;
use localnet::net::http;
use localnet::net::ports;
use localnet::net::{Net, write_file};
use localnet::process::launch::{await_step, spawn};
use serde_json::Value;

const PROMETHEUS: &str = "prometheus";
const ALERTMANAGER: &str = "prometheus-alertmanager";
const RULES: &str = include_str!("../../../deploy/prometheus/rules.yml");
const SCRAPES: &str = include_str!("../../../deploy/prometheus/prometheus.yml");
const ROUTES: &str = include_str!("../../../deploy/prometheus/alertmanager.yml");

pub struct Monitors {
    prometheus: SocketAddr,
}

/// An alert of Prometheus' own list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alert {
    pub name: String,
    pub firing: bool,
}

impl Monitors {
    /// Prometheus scrapes every host, and Alertmanager delivers to `webhook`.
    pub fn start(net: &Net, webhook: SocketAddr) -> Result<Monitors> {
        let dir = net.dir.join("monitors");
        make_dir(&dir)?;
        let [prometheus, alertmanager] = ports::pick(&net.dir, 2)?[..] else { bail!("2 ports were picked") };
        let [prometheus, alertmanager] =
            [prometheus, alertmanager].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));

        let mut scrapes = replaced(SCRAPES, "127.0.0.1:9093", &alertmanager.to_string())?;
        for (host, shown) in net.hosts.iter().zip(["10.0.0.1:2233", "10.0.0.2:2233", "10.0.0.3:2233"]) {
            scrapes = replaced(&scrapes, shown, &host.metrics().to_string())?;
        }
        write_file(&dir.join("rules.yml"), RULES)?;
        write_file(&dir.join("prometheus.yml"), &scrapes)?;
        write_file(&dir.join("alertmanager.yml"), &replaced(ROUTES, "127.0.0.1:8080", &webhook.to_string())?)?;

        let mut command = program(ALERTMANAGER)?;
        command.arg(format!("--config.file={}", dir.join("alertmanager.yml").display()));
        command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
        // It would look for others of its kind otherwise.
        command.arg(format!("--web.listen-address={alertmanager}")).arg("--cluster.listen-address=");
        spawn(net, command, "", &dir.join("alertmanager.log"), None)?;

        let mut command = program(PROMETHEUS)?;
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
        command.arg(format!("--web.listen-address={prometheus}"));
        spawn(net, command, "", &dir.join("prometheus.log"), None)?;

        for addr in [alertmanager, prometheus] {
            await_step(|| http::get(addr, "/-/ready").map(drop))
                .with_context(|| format!("start the monitors; logs in {}", dir.display()))?;
        }
        Ok(Monitors { prometheus })
    }

    /// The samples that `expr` has now.
    pub fn ask(&self, expr: &str) -> Result<Vec<f64>> {
        let answer = http::get_json(self.prometheus, &format!("/api/v1/query?query={}", encoded(expr)))?;
        let samples = answer["data"]["result"].as_array().with_context(|| format!("{expr}: {answer}"))?;
        let number = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        samples.iter().map(|sample| number(sample).with_context(|| format!("{expr}: {sample}"))).collect()
    }

    pub fn alerts(&self) -> Result<BTreeSet<Alert>> {
        let answer = http::get_json(self.prometheus, "/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array().with_context(|| format!("no alerts in {answer}"))?;
        let of = |alert: &Value| Alert {
            name: alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned(),
            firing: alert["state"] == "firing",
        };
        Ok(alerts.iter().map(of).collect())
    }
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    if !text.contains(from) {
        bail!("the shipped file lacks {from:?}:\n{text}");
    }
    Ok(text.replace(from, to))
}

fn program(name: &str) -> Result<Command> {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.with_context(|| {
        format!("{name} is missing: apt-get install prometheus prometheus-alertmanager, and stop their services")
    })?;
    Ok(Command::new(name))
}

/// For a URL's query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
