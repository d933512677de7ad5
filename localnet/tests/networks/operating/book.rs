//! Commands as a page of documentation shows them: `PROMPT$ baton …` and below it what it prints.

/// A command and its output, from one place of the page.
#[derive(Debug)]
pub struct Shown {
    pub section: String,
    pub prompt: String,
    pub args: Vec<String>,
    pub output: String,
    /// Of the command, counted from 1.
    pub line: usize,
}

/// All that stand in code blocks, in the order of the page.
pub fn commands(page: &str) -> Vec<Shown> {
    let (mut all, mut section, mut in_block, mut open): (Vec<Shown>, _, _, _) =
        (Vec::new(), String::new(), false, false);
    for (line, text) in (1..).zip(page.lines().map(str::trim)) {
        if text.starts_with("```") {
            (in_block, open) = (!in_block, false);
        } else if !in_block {
            if text.starts_with('#') {
                section = text.trim_start_matches('#').trim().to_owned();
            }
        } else if let Some((prompt, args)) = command(text) {
            let (section, output) = (section.clone(), String::new());
            all.push(Shown { section, prompt, args, output, line });
            open = true;
        } else if let Some(shown) = all.last_mut().filter(|_| open) {
            shown.output += text;
            shown.output.push('\n');
        }
    }
    all
}

fn command(line: &str) -> Option<(String, Vec<String>)> {
    let (prompt, rest) = line.split_once("$ baton ")?;
    let is_name = !prompt.is_empty() && !prompt.contains(char::is_whitespace);
    is_name.then(|| (prompt.to_owned(), rest.split_whitespace().map(str::to_owned).collect()))
}

/// The subcommands that the page's running text and tables name, with every option that is named with them.
pub fn mentions(page: &str) -> Vec<String> {
    let outside_blocks = page.split("```").step_by(2);
    let spans = outside_blocks.flat_map(|text| text.split('`').skip(1).step_by(2));
    let commands = spans.filter_map(|span| span.strip_prefix("baton "));
    commands
        .map(|words| words.split_whitespace().map(bare).filter(|word| is_fixed(word)).collect::<Vec<_>>().join(" "))
        .collect()
}

fn bare(word: &str) -> &str {
    word.trim_matches(['[', ']'])
}

/// Neither a placeholder such as `HOST:PORT` nor a value.
fn is_fixed(word: &str) -> bool {
    word.starts_with("--") || word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

/// Whether `told` is what was `shown`, but for numbers, times, addresses and absolute paths; `…` stands for anything.
pub fn is_alike(shown: &str, told: &str) -> bool {
    let (shown, told) = (shape(shown), shape(told));
    let parts: Vec<&[String]> = shown.split(|word| word == "…").collect();
    let (first, rest) = parts.split_first().expect("split gives at least one part");
    let Some(mut told) = told.strip_prefix(*first) else { return false };
    let Some((last, between)) = rest.split_last() else { return told.is_empty() };
    for part in between {
        let Some(at) = (0..=told.len()).find(|at| told[*at..].starts_with(part)) else { return false };
        told = &told[at + part.len()..];
    }
    told.ends_with(last)
}

/// The words, each run of numbers with their units as one `#`.
fn shape(text: &str) -> Vec<String> {
    const UNITS: [&str; 6] = ["d", "h", "min", "s", "ms", "days"];
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let after_number = words.last().is_some_and(|last| last == "#");
        if word.starts_with('/') {
            words.push("/".into());
        } else if word.contains(|c: char| c.is_ascii_digit()) {
            if !after_number {
                words.push("#".into());
            }
        } else if !(after_number && UNITS.contains(&word.trim_end_matches([',', ';', '.']))) {
            words.push(word.into());
        }
    }
    words
}

#[test]
fn numbers_and_what_is_left_out_may_differ_and_words_may_not() {
    let shown = "host-a -> host-b under epoch 5 in 57 ms";
    assert!(is_alike(shown, "host-a -> host-b under epoch 12 in 1.2 s\n"));
    assert!(!is_alike(shown, "host-a -> host-c under epoch 12 in 57 ms"));
    assert!(!is_alike(shown, "host-a -> host-b under epoch 5 in 57 ms or so"));
    assert!(is_alike("one … four\n…", "one two three four five"));
    assert!(!is_alike("one … four", "one two three"));
    assert!(!is_alike("… two … one", "one two"));
}
