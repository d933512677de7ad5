//! A writer of HTML in which markup comes from this program alone: text that somebody else may have written goes
//! through [`Html::text`], which escapes and bounds it. Used by the status page.

/// In place of characters that a browser would act upon and nobody could see.
const REPLACEMENT: char = '\u{fffd}';

#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup, which only a literal of this program can be.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Text for an element or a quoted attribute, of at most `chars_max` characters before it is escaped; the last one
    /// is `…` when some were left away.
    pub(super) fn text(&mut self, text: &str, chars_max: usize) -> &mut Html {
        let longer = text.chars().nth(chars_max).is_some();
        let kept = if longer { chars_max.saturating_sub(1) } else { chars_max };
        text.chars().take(kept).for_each(|c| self.push(c));
        if longer {
            self.0.push('…');
        }
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Html {
        self.0.push_str(&number.to_string());
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn push(&mut self, c: char) {
        match c {
            '&' => self.0.push_str("&amp;"),
            '<' => self.0.push_str("&lt;"),
            '>' => self.0.push_str("&gt;"),
            '"' => self.0.push_str("&quot;"),
            '\'' => self.0.push_str("&#39;"),
            // Whatever turns the direction of the text after it, also that of the page.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.0.push(REPLACEMENT),
            c if c.is_control() => self.0.push(REPLACEMENT),
            c => self.0.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, chars_max: usize) -> String {
        let mut html = Html::default();
        html.text(text, chars_max);
        html.into_string()
    }

    #[test]
    fn text_can_neither_open_an_element_nor_end_an_attribute() {
        let hostile = "</td><script>alert('1')</script>\" onload=\"x&lt;";
        let shown = escaped(hostile, 100);
        assert!(!shown.contains(['<', '>', '"', '\'']), "{shown}");
        assert!(shown.starts_with("&lt;/td&gt;&lt;script&gt;alert(&#39;1&#39;)"), "{shown}");
        assert!(shown.ends_with("&quot; onload=&quot;x&amp;lt;"), "{shown}");
    }

    #[test]
    fn text_neither_turns_the_line_nor_hides_in_it() {
        assert_eq!(escaped("a\u{202e}b\0c\u{1b}[2Jd\n", 20), "a\u{fffd}b\u{fffd}c\u{fffd}[2Jd\u{fffd}");
    }

    #[test]
    fn a_long_text_is_cut_by_characters_and_says_so() {
        assert_eq!(escaped("äöüß", 4), "äöüß");
        assert_eq!(escaped("äöüß!", 4), "äöü…");
        assert_eq!(escaped("&&&&&", 3), "&amp;&amp;…");
    }
}
