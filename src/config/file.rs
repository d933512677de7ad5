//! A configuration file as a flat map from key path to value, each with the line or the variable it
//! came from. Only known keys get in (`schema.rs`); what values mean is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::credentials::CREDENTIALS_DIRECTORY;
use super::daemon_variables;
use super::error::{ConfigError, Origin};
use super::key_list::KEYS;
use super::schema::{self, Shape};
use crate::base::hooks::{CLUSTER_VARIABLE, MEMBER_VARIABLE};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Raw>),
    Table(BTreeMap<String, Raw>),
    /// What no key takes, a float or a date.
    Other(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => number.fmt(f),
            Raw::Bool(yes) => yes.fmt(f),
            Raw::List(_) => f.write_str("a list"),
            Raw::Table(_) => f.write_str("a table"),
            Raw::Other(text) => f.write_str(text),
        }
    }
}

pub(super) struct Entry {
    pub value: Raw,
    pub at: Origin,
}

/// All that one file and its overriding variables say.
pub(super) struct Document {
    file: PathBuf,
    /// Starts of lines, to turn an offset into a line number.
    line_starts: Vec<usize>,
    /// By path; list elements are numbered: `cluster.members[0].id`.
    entries: BTreeMap<String, Entry>,
    /// Tables that are written down, and the elements of lists of tables, with their lines.
    tables: BTreeMap<String, Origin>,
    /// Where systemd has put the service's credentials.
    credentials: Option<String>,
    /// About variables that do not count, a line each.
    warnings: Vec<String>,
}

impl Document {
    pub(super) fn parse(file: &Path, text: &str) -> Result<Document, ConfigError> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut document = Document {
            file: file.to_owned(),
            line_starts,
            entries: BTreeMap::new(),
            tables: BTreeMap::new(),
            credentials: None,
            warnings: Vec::new(),
        };
        let root = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            at: document.origin(error.span().map_or(0, |span| span.start)),
            problem: error.message().replace('\n', ", "),
        })?;
        document.add_table("", root.get_ref())?;
        Ok(document)
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        Origin::File { file: self.file.clone(), line }
    }

    /// Takes over one table, in the order of the file so that the first mistake is the one reported.
    fn add_table(&mut self, table: &str, content: &DeTable<'_>) -> Result<(), ConfigError> {
        let mut keys: Vec<_> = content.iter().collect();
        keys.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in keys {
            let at = self.origin(name.span().start);
            let key = if table.is_empty() { name.get_ref().to_string() } else { format!("{table}.{}", name.get_ref()) };
            // A quoted key may hold anything; then it is none of ours.
            let shape = name.get_ref().chars().all(|c| c.is_alphanumeric() || c == '_');
            match shape.then(|| schema::shape(&schema::general(&key))).flatten() {
                Some(Shape::Value) => {
                    self.entries.insert(key, Entry { value: raw(value.get_ref()), at });
                }
                Some(Shape::Table) => self.add_section(key, value.get_ref(), at)?,
                Some(Shape::ListOfTables) => self.add_list(&key, value.get_ref(), &at)?,
                None => {
                    let hint = schema::hint(table, name.get_ref());
                    return Err(ConfigError::UnknownKey { key: one_line(&key), at, hint });
                }
            }
        }
        Ok(())
    }

    fn add_section(&mut self, key: String, value: &DeValue<'_>, at: Origin) -> Result<(), ConfigError> {
        let DeValue::Table(content) = value else {
            let problem = format!("{} where a table stands; write [{key}] and its keys below", raw(value));
            return Err(ConfigError::Bad { key, at, problem });
        };
        self.tables.insert(key.clone(), at);
        self.add_table(&key, content)
    }

    fn add_list(&mut self, key: &str, value: &DeValue<'_>, at: &Origin) -> Result<(), ConfigError> {
        let bad = |at: Origin| {
            let problem = format!("{} where a list of tables stands; write [[{key}]] for each", raw(value));
            ConfigError::Bad { key: key.to_owned(), at, problem }
        };
        let DeValue::Array(elements) = value else { return Err(bad(at.clone())) };
        for (index, element) in elements.iter().enumerate() {
            let line = self.origin(Spanned::span(element).start);
            let DeValue::Table(content) = element.get_ref() else { return Err(bad(line)) };
            let element = format!("{key}[{index}]");
            self.tables.insert(element.clone(), line);
            self.add_table(&element, content)?;
        }
        Ok(())
    }

    /// Lets `BATON_SECTION_KEY` variables replace what the file says, and cosmovisor's say what it leaves open; notes
    /// where credentials are. Variables whose first word is no section are none of ours.
    pub(super) fn override_from(&mut self, env: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
        let (mut ours, mut of_cosmovisor) = (Vec::new(), BTreeMap::new());
        for (name, value) in env {
            if name == CREDENTIALS_DIRECTORY {
                self.credentials = Some(value).filter(|dir| !dir.is_empty()).or(self.credentials.take());
            } else if [CLUSTER_VARIABLE, MEMBER_VARIABLE].contains(&name.as_str()) {
                // So that a hook can run `baton status`.
            } else if section_of(&name).is_some() {
                ours.push((name, value));
            } else if daemon_variables::is_of_cosmovisor(&name) {
                of_cosmovisor.insert(name, value);
            }
        }
        ours.sort();
        for (name, value) in ours {
            let Some(key) = KEYS.iter().find(|key| schema::variable(key.path) == name) else {
                return Err(self.unknown_variable(name));
            };
            if !key.scalar {
                return Err(self.not_overridable(name, key.path.to_owned()));
            }
            let mut table = key.path;
            while let Some((parent, _)) = table.rsplit_once('.') {
                self.tables.entry(parent.to_owned()).or_insert(Origin::Variable(name.clone()));
                table = parent;
            }
            self.entries.insert(key.path.to_owned(), Entry { value: Raw::Text(value), at: Origin::Variable(name) });
        }
        self.warnings = daemon_variables::fill_in(&mut self.entries, &of_cosmovisor)?;
        Ok(())
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn unknown_variable(&self, name: String) -> ConfigError {
        // A list or a table itself, or something below it: BATON_CLUSTER_MEMBERS, BATON_CHAIN_ENV_HOME.
        let owner = ["cluster.members", "chain.links", "chain.env", "chain.probe.calls"]
            .into_iter()
            .find(|path| name == schema::variable(path) || name.starts_with(&format!("{}_", schema::variable(path))));
        if let Some(key) = owner {
            return self.not_overridable(name, key.to_owned());
        }
        let known: Vec<String> = KEYS.iter().filter(|key| key.scalar).map(|key| schema::variable(key.path)).collect();
        let hint = match schema::nearest(&name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "docs/configuration.md lists the keys; unset it if it is not for baton".to_owned(),
        };
        ConfigError::UnknownVariable { name, hint }
    }

    fn not_overridable(&self, name: String, key: String) -> ConfigError {
        ConfigError::NotOverridable { name, key, file: self.file.clone() }
    }

    pub(super) fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        assert!(schema::key(key).is_some(), "{key} is read and not in the schema");
        self.entries.get(key)
    }

    pub(super) fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// How many elements a list of tables has.
    pub(super) fn count(&self, list: &str) -> usize {
        (0..).take_while(|index| self.has_table(&format!("{list}[{index}]"))).count()
    }

    /// Where a key or a table was written; the start of the file when it was not.
    pub(super) fn at(&self, path: &str) -> Origin {
        let entry = self.entries.get(path).map(|entry| &entry.at);
        entry.or_else(|| self.tables.get(path)).cloned().unwrap_or_else(|| self.origin(0))
    }

    pub(super) fn bad(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Bad { key: key.to_owned(), at: self.at(key), problem: problem.into() }
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        let line = schema::key(key).map_or("", |key| key.example);
        let table = key.rsplit_once('.').map_or("", |(table, _)| table);
        let example = if table.contains('[') { line.to_owned() } else { format!("[{table}] {line}") };
        ConfigError::Missing { key: key.to_owned(), file: self.file.clone(), example }
    }
}

/// The section that a variable speaks of: `BATON_TIMING_LEASE` → `timing`.
fn section_of(variable: &str) -> Option<&'static str> {
    let rest = variable.strip_prefix("BATON_")?;
    let word = rest.split('_').next()?.to_lowercase();
    schema::children("").into_iter().find(|section| *section == word)
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(yes) => Raw::Bool(*yes),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other(number.to_string()),
        },
        DeValue::Float(number) => Raw::Other(number.to_string()),
        DeValue::Datetime(date) => Raw::Other(date.to_string()),
        DeValue::Array(elements) => Raw::List(elements.iter().map(|element| raw(element.get_ref())).collect()),
        DeValue::Table(content) => {
            Raw::Table(content.iter().map(|(name, value)| (name.get_ref().to_string(), raw(value.get_ref()))).collect())
        }
    }
}

/// Without line breaks and other control characters, so that an error stays one line.
fn one_line(text: &str) -> String {
    text.escape_debug().to_string()
}
