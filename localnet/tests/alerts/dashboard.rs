//! What `deploy/grafana/baton.json` asks, as Grafana would send it with its variables at their defaults.

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../deploy/grafana/baton.json");
/// Grafana's own, and the dashboard's.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "1m"), ("$__range", "15m"), ("$cluster", ".*")];

/// Every query of every panel, and of every variable that asks for the values of a label.
pub fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("deploy/grafana/baton.json is JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(panel["type"] == "row" || !targets.is_empty(), "a panel asks nothing: {panel:#}");
        queries.extend(targets.iter().map(|target| text(&target["expr"])));
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            let query = text(&variable["query"]["query"]);
            let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) =
                inside.and_then(|inside| inside.split_once(", ")).expect("label_values(metric, label)");
            queries.push(format!("count by ({label}) ({metric}{{{label}!=\"\"}})"));
        }
    }
    for query in &mut queries {
        for (name, value) in VARIABLES {
            *query = query.replace(name, value);
        }
        assert!(!query.contains('$'), "a variable that is not known here: {query}");
    }
    queries
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
