//! Plain columns for a terminal of 80 characters. The first column gives way when a line would not
//! fit, and a note goes below its row, whole.

/// Widest line, in characters.
pub(super) const WIDTH: usize = 80;

/// Narrowest width of the column that gives way.
const GIVING_MIN: usize = 4;

/// Rows under their heads, columns as wide as their widest cell. Each row may have a note of some lines, which are broken
/// where they would be wider.
pub(super) fn render(heads: &[&str], rows: &[(Vec<String>, Option<String>)]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|(cells, _)| cells.clone()).collect();
    let mut lines = columns(heads, &cells, WIDTH, 0).into_iter();
    let mut out = format!("{}\n", lines.next().unwrap_or_default());
    for (line, (_, note)) in lines.zip(rows) {
        out.push_str(&format!("{line}\n"));
        for note in note.iter().flat_map(|note| note.lines()) {
            out.push_str(&format!("  {}\n", fold(note, WIDTH - 4).join("\n    ")));
        }
    }
    out
}

/// The line of the heads and one for each row. Column number `gives` gives way when they would be wider than `width`.
pub(super) fn columns(heads: &[&str], rows: &[Vec<String>], width: usize, gives: usize) -> Vec<String> {
    let heads: Vec<String> = heads.iter().map(|head| head.to_string()).collect();
    let mut widths: Vec<usize> = vec![0; heads.len()];
    for cells in std::iter::once(&heads).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let gaps = widths.len().saturating_sub(1);
    let total: usize = widths.iter().sum();
    let gap = if total + 2 * gaps <= width { "  " } else { " " };
    let excess = (total + gap.len() * gaps).saturating_sub(width);
    if let Some(giving) = widths.get_mut(gives) {
        *giving = giving.saturating_sub(excess).max(GIVING_MIN.min(*giving));
    }
    std::iter::once(&heads).chain(rows).map(|cells| line(cells, &widths, gap)).collect()
}

/// `text` in lines of at most [`WIDTH`] characters, all but the first indented.
pub(super) fn folded(text: &str) -> String {
    format!("{}\n", fold(text, WIDTH - 2).join("\n  "))
}

/// `text` in lines of at most `width` characters, broken between words; a word that is longer is broken, too.
pub(super) fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        let last = lines.last_mut().expect("never empty");
        if used > 0 {
            last.push(' ');
            used += 1;
        }
        if length <= width {
            last.push_str(word);
            used += length;
            continue;
        }
        for c in word.chars() {
            if used >= width.max(1) {
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().expect("never empty").push(c);
            used += 1;
        }
    }
    lines
}

fn line(cells: &[String], widths: &[usize], gap: &str) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", cut(cell, *width))).collect();
    padded.join(gap).trim_end().to_owned()
}

/// At most `width` characters, the last one `…` when some were taken away.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
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
        assert_eq!(fold("a /very/long/path b", 8), ["a", "/very/lo", "ng/path", "b"]);
    }
}
