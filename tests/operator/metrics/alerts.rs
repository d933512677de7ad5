//! The alerts, their page and their unit tests fit together, and ask for nothing that is not exported. What they do is
//! tested by `promtool`: `cargo test --test operator metrics:: -- --ignored`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::{CONTRACT, lively};

const RULES: &str = include_str!("../../../deploy/prometheus/rules.yml");
const UNIT_TESTS: &str = include_str!("../../../deploy/prometheus/rules_test.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/baton.json");
const PAGE: &str = include_str!("../../../docs/alerts.md");
const OPERATING: &str = include_str!("../../../docs/operating.md");

/// What follows `key:` in the text of one rule.
fn field<'a>(rule: &'a str, key: &str) -> &'a str {
    let line = rule.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {key} in\n{rule}")).trim_matches('"')
}

/// Name and text of each alert.
fn rules() -> Vec<(&'static str, &'static str)> {
    let rules = RULES.split("- alert: ").skip(1);
    rules.map(|rule| rule.split_once('\n').expect("more than a name")).collect()
}

/// Every word of `text` that can be a metric of ours, without what a histogram adds.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("baton_"));
    words
        .map(|word| ["_bucket", "_sum", "_count"].iter().fold(word, |word, tail| word.trim_end_matches(tail)))
        .collect()
}

#[test]
fn every_alert_says_how_bad_it_is_what_to_do_and_where_to_read_on() {
    assert!(rules().len() >= 20, "{:?}", rules());
    for (name, rule) in rules() {
        assert!(["critical", "warning"].contains(&field(rule, "severity")), "{name}");
        assert!(field(rule, "for").ends_with(['s', 'm', 'h']), "{name}");
        assert!(field(rule, "summary").contains("{{ $labels.cluster }}"), "{name}");
        assert!(rule.contains("description: >-"), "{name}");
        assert_eq!(field(rule, "runbook"), format!("docs/alerts.md#{}", name.to_lowercase()), "{name}");
    }
}

#[test]
fn every_alert_has_a_row_and_a_section_on_the_page_and_no_other_has() {
    let names: Vec<&str> = rules().into_iter().map(|(name, _)| name).collect();
    let sections: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, names);
    for (name, rule) in rules() {
        let (severity, held) = (field(rule, "severity"), field(rule, "for"));
        let row = format!("| [{name}](#{}) | {severity} | {held} | ", name.to_lowercase());
        assert!(PAGE.contains(&row), "no row {row:?}");
        let section = PAGE.split("\n## ").find(|section| section.starts_with(&format!("{name}\n"))).expect("a section");
        for part in ["**Meaning.** ", "**Look at.** ", "**Do.** "] {
            assert!(section.contains(part), "{name} lacks {part}");
        }
    }
}

#[test]
fn links_from_the_page_to_operating_lead_somewhere() {
    let plain =
        |title: &str| title.to_lowercase().replace(' ', "-").replace(|c: char| !(c.is_alphanumeric() || c == '-'), "");
    let titles: Vec<String> = OPERATING
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| plain(line.trim_start_matches(['#', ' '])))
        .collect();
    let links: Vec<&str> = PAGE.split("(operating.md#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(titles.iter().any(|title| title == link), "no {link} among {titles:?}");
    }
}

#[test]
fn every_alert_has_a_unit_test_in_which_it_fires() {
    for (name, _) in rules() {
        assert!(UNIT_TESTS.contains(&format!("alertname=\"{name}\"")), "{name} is never expected to fire");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist_and_the_dashboard_for_all() {
    let known: BTreeSet<&str> = CONTRACT.iter().map(|(name, _, _)| *name).collect();
    let asked: String = rules().iter().map(|(_, rule)| rule.split("labels:").next().unwrap_or_default()).collect();
    assert_eq!(metrics_in(&asked).difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert_eq!(metrics_in(DASHBOARD), known);
}

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(file)
}

/// Runs to the end and must succeed; what it printed.
fn succeed(mut command: Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        let name = command.get_program().to_string_lossy();
        panic!("{name}: {error}; apt-get install prometheus prometheus-alertmanager has it")
    });
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("read to its end");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its end");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{said}");
    said
}

fn promtool(args: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command.args(args);
    command
}

#[test]
#[ignore = "needs promtool; see README"]
fn promtool_finds_nothing_to_say_of_the_metrics() {
    let said = succeed(promtool(&["check", "metrics"]), &lively().encode());
    assert_eq!(said, "", "it complains without failing");
}

#[test]
#[ignore = "needs promtool and amtool; see README"]
fn the_shipped_files_are_taken_as_they_are() {
    let mut check = promtool(&["check", "config"]);
    check.arg(deploy("prometheus.yml"));
    let said = succeed(check, "");
    assert!(said.contains(&format!("{} rules found", rules().len())), "{said}");
    let mut check = Command::new("amtool");
    check.arg("check-config").arg(deploy("alertmanager.yml"));
    succeed(check, "");
}

#[test]
#[ignore = "needs promtool; see README"]
fn every_alert_fires_when_it_should_and_not_for_what_happens_every_day() {
    let mut test = promtool(&["test", "rules"]);
    test.arg(deploy("rules_test.yml"));
    let said = succeed(test, "");
    assert!(said.contains("SUCCESS"), "{said}");
}
