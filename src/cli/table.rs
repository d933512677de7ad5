//! Plain columns for a terminal of 80 characters. The first column gives way when a line would not
//! fit, and a note goes below its row.

use std::time::Duration;

/// Widest line, in characters.
pub(super) const WIDTH: usize = 80;

const FIRST_MIN: usize = 4;

/// Rows under their heads, columns as wide as their widest cell. Each row may have a note of some lines.
pub(super) fn render(heads: &[&str], rows: &[(Vec<String>, Option<String>)]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.len()).collect();
    for (cells, _) in rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let gaps = widths.len().saturating_sub(1);
    let total: usize = widths.iter().sum();
    let gap = if total + 2 * gaps <= WIDTH { "  " } else { " " };
    let excess = (total + gap.len() * gaps).saturating_sub(WIDTH);
    if let Some(first) = widths.first_mut() {
        *first = first.saturating_sub(excess).max(FIRST_MIN);
    }
    let heads = heads.iter().map(|head| head.to_string()).collect::<Vec<_>>();
    let mut out = line(&heads, &widths, gap);
    for (cells, note) in rows {
        out.push_str(&line(cells, &widths, gap));
        for note in note.iter().flat_map(|note| note.lines()) {
            out.push_str(&format!("  {}\n", cut(note, WIDTH - 2)));
        }
    }
    out
}

/// `text` in lines of at most [`WIDTH`] characters, broken between words.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::new();
    let mut left = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        match left {
            0 => {}
            _ if length < left => out.push(' '),
            _ => {
                out.push_str("\n  ");
                left = WIDTH - 1;
            }
        }
        left = if left == 0 { WIDTH } else { left - 1 }.saturating_sub(length).max(1);
        out.push_str(word);
    }
    out.push('\n');
    out
}

fn line(cells: &[String], widths: &[usize], gap: &str) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", cut(cell, *width))).collect();
    format!("{}\n", padded.join(gap).trim_end())
}

/// At most `width` characters, the last one `…` when some were taken away.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// `-` in place of nothing.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Two units at most: `3 d 4 h`, `12 min`, `40 s`.
pub(super) fn ago(since: Duration) -> String {
    let secs = since.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_warning_is_broken_between_words_and_loses_none() {
        let text = "WARNING: two voters: the loss of EITHER stops signing; ".repeat(4);
        let shown = folded(&text);
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        assert!(shown.lines().count() > 2, "{shown}");
        assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(folded("short"), "short\n");
    }
}
