//! docs/metrics.md against what is exported.

use std::collections::BTreeMap;

use baton::base::time::BootTime;
use baton::operator::metrics::Metrics;

use super::{CONTRACT, lively};

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// A row of the table: type, unit, names of the labels, when it is absent.
struct Row {
    kind: String,
    unit: String,
    labels: Vec<String>,
    absent: String,
}

fn rows() -> BTreeMap<String, Row> {
    let section = PAGE.split("\n## ").find(|section| section.starts_with("All of them")).expect("the table's section");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| `baton_")).map(cells);
    let of = |row: Vec<String>| {
        let [name, kind, unit, labels, absent, _meaning] = &row[..] else { panic!("not six cells: {row:?}") };
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let row = Row { kind: kind.clone(), unit: unit.clone(), labels, absent: absent.clone() };
        (name.trim_matches('`').to_owned(), row)
    };
    rows.map(of).collect()
}

/// Whether `text` has a series of `name`.
fn shows(text: &str, name: &str) -> bool {
    let tails = ["", "_count"];
    text.lines().any(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| tails.iter().any(|t| rest.strip_prefix(t).is_some_and(|r| r.starts_with([' ', '{']))))
    })
}

#[test]
fn the_page_lists_every_metric_with_its_type_and_labels_and_no_other() {
    let rows = rows();
    assert_eq!(rows.keys().collect::<Vec<_>>(), {
        let mut names: Vec<&str> = CONTRACT.iter().map(|(name, _, _)| *name).collect();
        names.sort();
        names
    });
    for (name, kind, labels) in CONTRACT {
        let row = &rows[name];
        assert_eq!(row.kind, kind, "{name}");
        let le = (kind == "histogram").then_some("le");
        let labels: Vec<&str> = labels.iter().copied().chain(le).collect();
        assert_eq!(row.labels, labels, "{name}");
    }
}

#[test]
fn the_page_has_the_unit_of_each_help_text() {
    let text = lively().encode();
    for (name, Row { unit, kind, .. }) in rows() {
        let help = text.lines().find(|line| line.starts_with(&format!("# HELP {name} "))).expect("a help text");
        let told = match unit.as_str() {
            "1 or 0" => help.ends_with("1 or 0") || help.ends_with("else 0"),
            "count" if kind == "counter" => help.ends_with("count since start"),
            unit => help.ends_with(unit),
        };
        assert!(told, "{name} is in {unit:?}, and: {help}");
    }
}

#[test]
fn what_is_never_absent_is_there_from_the_first_moment_on_and_nothing_else_is() {
    let (fresh, lively) = (Metrics::new(BootTime::now()).encode(), lively().encode());
    for (name, Row { absent, .. }) in rows() {
        assert_eq!(shows(&fresh, &name), absent == "never", "{name} is absent: {absent}\n{fresh}");
        assert!(shows(&lively, &name), "{name} has no series in\n{lively}");
    }
}
