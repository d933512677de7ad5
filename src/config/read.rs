//! Typed reading of a `Document`: one getter a type, with the error that says how to write it. A value
//! from a variable is text and is read as what its key takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Origin};
use super::file::{Document, Entry, Raw};
use super::{schema, units};

impl Document {
    fn wrong_type(&self, key: &str, entry: &Entry, wanted: &str) -> ConfigError {
        let example = schema::key(key).map_or("", |key| key.example);
        self.bad(key, format!("{} is not {wanted}; for example: {example}", entry.value))
    }

    /// Text that is not empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match &entry.value {
            Raw::Text(text) if text.trim().is_empty() => Err(self.bad(key, "is empty; write a value or remove it")),
            Raw::Text(text) => Ok(Some(text.clone())),
            Raw::Integer(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
                Err(self.wrong_type(key, entry, "a string"))
            }
        }
    }

    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| self.missing(key))
    }

    pub(super) fn required_text(&self, key: &str) -> Result<String, ConfigError> {
        self.required(key, self.text(key)?)
    }

    /// A whole number from `min` to `max`, both included.
    pub(super) fn integer(&self, key: &str, min: u32, max: u32) -> Result<Option<u32>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let number = match (&entry.value, &entry.at) {
            (Raw::Integer(number), _) => Some(*number),
            (Raw::Text(text), Origin::Variable(_)) => text.trim().parse().ok(),
            (Raw::Text(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_), _) => None,
        };
        let number = number.ok_or_else(|| self.wrong_type(key, entry, "a whole number"))?;
        match u32::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => Err(self.bad(key, format!("{number} is out of range; use {min} to {max}"))),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let yes = match (&entry.value, &entry.at) {
            (Raw::Bool(yes), _) => Some(*yes),
            (Raw::Text(text), Origin::Variable(_)) => text.trim().parse().ok(),
            (Raw::Text(_) | Raw::Integer(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_), _) => None,
        };
        yes.map(Some).ok_or_else(|| self.wrong_type(key, entry, "true or false"))
    }

    /// A duration of any length; `Timing` has its own ranges.
    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let duration = match &entry.value {
            Raw::Text(text) => units::duration(text),
            Raw::Integer(number) => units::duration(&number.to_string()),
            Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
                return Err(self.wrong_type(key, entry, "a duration"));
            }
        };
        duration.map(Some).map_err(|problem| self.bad(key, problem))
    }

    /// A duration from `min` to `max`, both included.
    pub(super) fn duration_within(
        &self,
        key: &str,
        min: Duration,
        max: Duration,
    ) -> Result<Option<Duration>, ConfigError> {
        match self.duration(key)? {
            Some(d) if d < min || d > max => {
                let (d, min, max) = (units::show(d), units::show(min), units::show(max));
                Err(self.bad(key, format!("{d} is out of range; use {min} to {max}")))
            }
            other => Ok(other),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self.bad(key, format!("{text:?} is not known; use {}", words.join(" or "))))
            }
        }
    }

    pub(super) fn socket_addr(&self, key: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() == 0 => Err(self.bad(key, format!("{text:?} has port 0; name a port"))),
            Ok(addr) => Ok(Some(addr)),
            Err(_) => Err(self.bad(key, format!("{text:?} is not IP:PORT; write \"127.0.0.1:7401\" or \"[::]:7401\""))),
        }
    }

    /// The directory of the file, from which relative paths are counted.
    fn base(&self) -> Result<PathBuf, ConfigError> {
        let file = self.file();
        let whole =
            std::path::absolute(file).map_err(|reason| ConfigError::Unreadable { file: file.to_owned(), reason })?;
        Ok(whole.parent().unwrap_or(Path::new("/")).to_owned())
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        self.refuse_variable(key, &text)?;
        Ok(Some(self.base()?.join(text)))
    }

    pub(super) fn required_path(&self, key: &str) -> Result<PathBuf, ConfigError> {
        self.required(key, self.path(key)?)
    }

    /// A JSON pointer (RFC 6901) to something inside an answer.
    pub(super) fn pointer(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.text(key)? {
            Some(text) if !text.starts_with('/') => {
                Err(self.bad(key, format!("{text:?} is not a JSON pointer; write \"/{}\"", text.replace('.', "/"))))
            }
            other => Ok(other),
        }
    }

    /// A program and its arguments. A program named by a relative path with a slash is counted from
    /// the file's directory, one without is looked up in PATH.
    pub(super) fn argv(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(mut argv) = self.texts(key)? else { return Ok(None) };
        let example = schema::key(key).map_or("", |key| key.example);
        match argv.first_mut() {
            Some(program) if !program.trim().is_empty() => {
                if program.contains('/') {
                    *program = self.base()?.join(&*program).to_string_lossy().into_owned();
                }
                Ok(Some(argv))
            }
            Some(_) | None => Err(self.bad(key, format!("is empty; for example: {example}"))),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let wrong = || self.wrong_type(key, entry, "a list of strings");
        let Raw::List(words) = &entry.value else { return Err(wrong()) };
        let text = |word: &Raw| match word {
            Raw::Text(word) => Ok(word.clone()),
            Raw::Integer(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => Err(wrong()),
        };
        words.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A list or a table as JSON, of text, whole numbers, booleans, lists and tables.
    pub(super) fn json(&self, key: &str) -> Result<Option<serde_json::Value>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match &entry.value {
            Raw::List(_) | Raw::Table(_) => match json(&entry.value) {
                Ok(value) => Ok(Some(value)),
                Err(other) => {
                    Err(self.bad(key, format!("{other} is neither text, whole number, boolean, list nor table")))
                }
            },
            Raw::Text(_) | Raw::Integer(_) | Raw::Bool(_) | Raw::Other(_) => {
                Err(self.wrong_type(key, entry, "a list or a table"))
            }
        }
    }

    /// A table of text, such as an environment.
    pub(super) fn variables(&self, key: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        let Some(entry) = self.entry(key) else { return Ok(BTreeMap::new()) };
        let Raw::Table(table) = &entry.value else { return Err(self.wrong_type(key, entry, "a table")) };
        let mut variables = BTreeMap::new();
        for (name, value) in table {
            let Raw::Text(text) = value else {
                return Err(self.bad(key, format!("{name:?} is {value}, not a string; write {name} = \"{value}\"")));
            };
            if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
                return Err(self.bad(key, format!("{name:?} cannot be an environment variable; rename it")));
            }
            variables.insert(name.clone(), text.clone());
        }
        Ok(variables)
    }
}

/// `Err` is the first value inside that has no place in JSON, as it was written.
fn json(raw: &Raw) -> Result<serde_json::Value, String> {
    Ok(match raw {
        Raw::Text(text) => text.as_str().into(),
        Raw::Integer(number) => (*number).into(),
        Raw::Bool(yes) => (*yes).into(),
        Raw::List(elements) => elements.iter().map(json).collect::<Result<_, _>>()?,
        Raw::Table(table) => {
            let pairs = table.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            serde_json::Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        Raw::Other(text) => return Err(text.clone()),
    })
}
