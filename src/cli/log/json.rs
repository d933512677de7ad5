//! A log line as one JSON object. The first fields are the same in every line, and none of an event's own can take
//! their place; docs/logs.md has the names that programs may rely on. tracing-subscriber's own format has no field of ours.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::base::time::WallTime;

/// In every line.
const OURS: [&str; 4] = ["timestamp", "level", "member", "message"];

pub(super) struct JsonLines {
    pub(super) member: String,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let level = event.metadata().level().as_str();
        writeln!(writer, "{}", line(&WallTime::now().to_string(), level, &self.member, fields.0))
    }
}

fn line(timestamp: &str, level: &str, member: &str, mut fields: Map<String, Value>) -> String {
    let message = fields.remove("message").unwrap_or_else(|| "".into());
    let ours = OURS.into_iter().zip([timestamp.into(), level.into(), member.into(), message]);
    let mut out = String::from("{");
    for (name, value) in ours {
        push(&mut out, name, &value);
    }
    for (name, value) in fields {
        let taken = OURS.contains(&name.as_str());
        push(&mut out, &if taken { format!("{name}_") } else { name }, &value);
    }
    out.push('}');
    out
}

fn push(out: &mut String, name: &str, value: &Value) {
    let comma = if out.len() > 1 { "," } else { "" };
    out.push_str(&format!("{comma}{}:{value}", Value::from(name)));
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        // A raw identifier is one for the compiler alone.
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_whatever_is_said_in_it() {
        let sink = Sink::default();
        let written = sink.clone();
        let lines = layer().event_format(JsonLines { member: "host-a".into() }).with_writer(move || sink.clone());
        tracing::subscriber::with_default(registry().with(lines), || {
            tracing::info!(
                epoch = 4u64,
                member = "host-b",
                none = Option::<u64>::None,
                "a \"quoted\"\nline \u{1b}[31m"
            );
            tracing::warn!(ok = true, left = -1, path = %"x", "plain");
        });
        let bytes = written.0.lock().expect("whole").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(text.starts_with("{\"timestamp\":\"20"), "{text}");
        assert_eq!((&lines[0]["level"], &lines[0]["member"]), (&"INFO".into(), &"host-a".into()), "{text}");
        assert_eq!((&lines[0]["epoch"], &lines[0]["member_"]), (&4.into(), &"host-b".into()), "{text}");
        assert_eq!(lines[0]["message"], "a \"quoted\"\nline \u{1b}[31m");
        assert!(lines[0].get("none").is_none(), "{text}");
        assert_eq!((&lines[1]["ok"], &lines[1]["left"], &lines[1]["path"]), (&true.into(), &(-1).into(), &"x".into()));
    }
}
