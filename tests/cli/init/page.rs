//! A file of `baton init` as somebody reads it who takes comments away: its lines, what they are commented out for, and
//! the texts that come of it.

use std::collections::BTreeSet;

pub struct Page {
    lines: Vec<String>,
}

/// Lines with `##`, and what the comment above them says that they go with.
#[derive(Clone, Debug)]
pub struct Choice {
    condition: String,
    lines: Vec<usize>,
}

impl Page {
    pub fn of(text: &str) -> Page {
        Page { lines: text.lines().map(str::to_owned).collect() }
    }

    pub fn line(&self, index: usize) -> &str {
        &self.lines[index]
    }

    pub fn as_written(&self) -> String {
        self.text(&BTreeSet::new())
    }

    /// Lines with one `#` in front of a key or a table.
    pub fn shown(&self) -> Vec<usize> {
        let is_shown = |index: &usize| !self.is_below_a_shown_table(*index) && is_commented(&self.lines[*index], "#");
        (0..self.lines.len()).filter(is_shown).collect()
    }

    /// A key that makes sense with its table alone.
    fn is_below_a_shown_table(&self, index: usize) -> bool {
        let table = self.lines[..index].iter().rev().find(|line| line.trim_start_matches('#').starts_with('['));
        table.is_some_and(|table| table.starts_with('#'))
    }

    /// The text with one line taken in, and with all lines of it when it is a table.
    pub fn with(&self, index: usize) -> String {
        let end = match self.lines[index].starts_with("#[") {
            true => {
                (index + 1..self.lines.len()).find(|at| self.lines[*at].starts_with('[') || self.lines[*at].is_empty())
            }
            false => Some(index + 1),
        };
        let range = index..end.unwrap_or(self.lines.len());
        self.text(&range.filter(|at| is_commented(&self.lines[*at], "#")).collect())
    }

    /// With every line that needs no other choice.
    pub fn with_all(&self) -> String {
        let free = (0..self.lines.len()).filter(|index| is_commented(&self.lines[*index], "#"));
        let with = self.choices().into_iter().filter(|choice| choice.is_free()).flat_map(|choice| choice.lines);
        self.text(&free.chain(with).collect())
    }

    pub fn is_default(&self, index: usize) -> bool {
        self.lines[index - 1].contains("[default: ")
    }

    pub fn choices(&self) -> Vec<Choice> {
        let mut choices: Vec<Choice> = Vec::new();
        for index in (0..self.lines.len()).filter(|index| is_commented(&self.lines[*index], "##")) {
            let comment = &self.lines[index - 1];
            let (condition, _) = comment.split_once(": ").unwrap_or_else(|| panic!("{comment:?} has no condition"));
            let condition = condition.trim_start_matches("# ").to_owned();
            match choices.iter_mut().find(|choice| choice.condition == condition && condition.starts_with("Only")) {
                Some(choice) => choice.lines.push(index),
                None => choices.push(Choice { condition, lines: vec![index] }),
            }
        }
        choices
    }

    /// The text with what a choice goes with, and with the choice as well. The former is only there where all lines of
    /// the choice show defaults.
    pub fn chosen(&self, choice: &Choice) -> (Option<String>, String) {
        let mut page = Page { lines: self.lines.clone() };
        let mut taken = BTreeSet::new();
        match choice.condition.strip_prefix("In place of ") {
            Some(others) => {
                for other in others.replace(" and ", ", ").split(", ") {
                    let at = page.place(other, choice.lines[0]);
                    page.lines[at].insert(0, '#');
                }
                (None, page.text(&choice.lines.iter().copied().collect()))
            }
            None => {
                page.meet(&choice.condition, choice.lines[0], &mut taken);
                if choice.condition.contains("chain.custody") {
                    page.leave_out("chain.links");
                }
                let without = page.text(&taken);
                taken.extend(&choice.lines);
                let all_default = choice.lines.iter().all(|line| self.is_default(*line));
                (all_default.then_some(without), page.text(&taken))
            }
        }
    }

    /// The tables of this path are commented out.
    fn leave_out(&mut self, path: &str) {
        let paths = self.paths();
        for (line, _) in self.lines.iter_mut().zip(paths).filter(|(_, of)| of.starts_with(path)) {
            line.insert(0, '#');
        }
    }

    /// Takes in what `Only with KEY` or `Only with KEY = VALUE` asks for, and what that asks for in its turn.
    fn meet(&mut self, condition: &str, near: usize, taken: &mut BTreeSet<usize>) {
        let wanted = condition.strip_prefix("Only with ").unwrap_or_else(|| panic!("{condition:?} is no condition"));
        let (key, value) = wanted.split_once(" = ").unwrap_or((wanted, ""));
        let at = self.place(key, near);
        if !value.is_empty() {
            let name = key.rsplit('.').next().unwrap_or(key);
            self.lines[at] = format!("#{name} = {value}");
        }
        taken.insert(at);
        let above = self.lines[at - 1].trim_start_matches("# ").to_owned();
        if self.lines[at].starts_with("##") && above.starts_with("Only with ") {
            self.meet(above.split(": ").next().unwrap_or_default(), at, taken);
        }
    }

    /// The line of a key, in the table of line `near` unless the key names its own.
    fn place(&self, key: &str, near: usize) -> usize {
        let paths = self.paths();
        let table = paths[near].rsplit_once('.').map_or("", |(table, _)| table).to_owned();
        let path = if key.contains('.') { key.to_owned() } else { format!("{table}.{key}") };
        paths.iter().position(|other| *other == path).unwrap_or_else(|| panic!("no line for {path}"))
    }

    /// Path, value and comment of every line with a key.
    pub fn keys(&self) -> Vec<(String, String, String)> {
        let paths = self.paths();
        let keys =
            (0..self.lines.len()).filter(|index| !paths[*index].is_empty() && paths[*index] != "cluster.members");
        keys.filter(|index| !self.lines[*index].trim_start_matches('#').starts_with('['))
            .map(|index| {
                let value = self.lines[index].split_once(" = ").map_or("", |(_, value)| value);
                (paths[index].clone(), value.to_owned(), self.lines[index - 1].clone())
            })
            .collect()
    }

    /// Of each line's key, commented out or not; empty for a line without one.
    fn paths(&self) -> Vec<String> {
        let mut table = String::new();
        let path = |line: &String| {
            let bare = if line.starts_with("# ") { "" } else { line.trim_start_matches('#') };
            if let Some(name) = bare.strip_prefix("[[") {
                table = name.replace("]]", "[]");
                return table.clone();
            } else if let Some(name) = bare.strip_prefix('[') {
                table = name.trim_end_matches(']').to_owned();
                return table.clone();
            }
            let key = bare.split_once(" = ").filter(|_| bare.starts_with(|c: char| c.is_ascii_lowercase()));
            key.map_or(String::new(), |(key, _)| format!("{table}.{key}"))
        };
        self.lines.iter().map(path).collect()
    }

    fn text(&self, taken: &BTreeSet<usize>) -> String {
        let line = |(index, line): (usize, &String)| match taken.contains(&index) {
            true => line.trim_start_matches('#').to_owned() + "\n",
            false => line.clone() + "\n",
        };
        self.lines.iter().enumerate().map(line).collect()
    }
}

impl Choice {
    /// Whether it goes with a key that is itself only commented out.
    fn is_free(&self) -> bool {
        self.condition.strip_prefix("Only with ").is_some_and(|key| !key.contains(" = "))
    }
}

fn is_commented(line: &str, sign: &str) -> bool {
    line.strip_prefix(sign).is_some_and(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
}
