//! Text for people: aligned tables, and a status that is redrawn in place on a terminal and printed
//! once per change elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::judge::status::{Member, Status};

/// Columns as wide as their widest cell, two spaces apart, no trailing blanks.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Whole milliseconds, `847 ms`.
pub fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

pub fn status_table(status: &Status) -> String {
    let head = ["host", "role", "state", "phase", "synced", "height", "links", "guard", "lease ms", "node pid"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(status.members.iter().map(|m| member_row(m, status)));
    let name = |id: &Option<String>| id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| "none".into());
    let head = format!(
        "holder {}  leader {}  epoch {}  term {}  quorum {}\n",
        name(&status.holder),
        name(&status.leader),
        status.epoch,
        status.term,
        if status.quorum { "yes" } else { "NO" }
    );
    head + &table(&rows)
}

fn member_row(m: &Member, status: &Status) -> Vec<String> {
    let text = |t: &Option<String>| t.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| "-".into());
    let number = |n: Option<String>| n.unwrap_or_else(|| "-".into());
    let validator = m.role == "validator";
    let holder = status.holder.as_deref() == Some(m.id.as_str());
    vec![
        m.id.clone(),
        m.role.clone(),
        if m.reachable { m.state.clone() } else { "unreachable".into() },
        text(&m.phase),
        number(m.synced.filter(|_| validator).map(|s| if s { "yes".into() } else { "no".into() })),
        number(m.height.filter(|_| validator).map(|h| h.to_string())),
        text(&m.links),
        text(&m.guard),
        number(m.lease_remaining_ms.filter(|_| holder).map(|ms| ms.to_string())),
        number(m.node_pid.filter(|pid| *pid > 0).map(|pid| pid.to_string())),
    ]
}

/// Where demo shows what happens.
pub struct Screen {
    terminal: bool,
    /// Lines of the table that stand below the last note.
    drawn: usize,
    last: String,
    started: Instant,
}

impl Default for Screen {
    fn default() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Screen { terminal, drawn: 0, last: String::new(), started: Instant::now() }
    }
}

impl Screen {
    /// A line that stays.
    pub fn note(&mut self, text: &str) {
        self.erase();
        self.print(&format!("[{:6.1} s] {text}\n", self.started.elapsed().as_secs_f64()));
    }

    /// The current status; off a terminal only what changed, heights and times apart.
    pub fn show(&mut self, status: &Status) {
        if self.terminal {
            let text = status_table(status);
            self.erase();
            self.drawn = text.lines().count();
            // Without line wrap, so that a narrow terminal has as many rows to erase as there are lines.
            self.print(&format!("\x1b[?7l{text}\x1b[?7h"));
        } else if status.summary() != self.last {
            self.last = status.summary();
            self.note(&status.summary());
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            self.print(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    /// A reader that went away does not stop a demo halfway.
    fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let rows = [vec!["a".into(), "long".into(), "".into()], vec!["bcd".into(), "x".into(), "y".into()]];
        assert_eq!(table(&rows), "a    long\nbcd  x     y\n");
    }

    #[test]
    fn only_the_holder_shows_a_lease() {
        let member = |id: &str| Member {
            id: id.into(),
            role: "validator".into(),
            reachable: true,
            lease_remaining_ms: Some(777),
            ..Member::default()
        };
        let status = Status {
            holder: Some("host-b".into()),
            members: vec![member("host-a"), member("host-b")],
            ..Status::default()
        };
        let text = status_table(&status);
        let with_lease: Vec<_> = text.lines().filter(|l| l.contains("777")).collect();
        assert!(with_lease.len() == 1 && with_lease[0].starts_with("host-b"), "{text}");
    }
}
