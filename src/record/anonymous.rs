//! A record for strangers: no name of a member, no address, no path, no key. What a core answers has reasons in it, so
//! the answers are those of a core that was told the same without names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::entry::{Entry, Head, Question, digest};
use super::format::Piece;
use crate::base::ids::NodeId;
use crate::core::{Core, Event};

/// Fewer characters are no key.
const KEY_CHARS_MIN: usize = 32;
const QUOTES: &[char] = &['"', '\'', '`', '(', ')', '[', ']', '{', '}', '<', '>', ',', ';', '='];

/// `pieces` without what could tell whose they are. They replay as before, and differ where they did.
///
/// # Errors
/// There is something that could not be rewritten, and so must not be given away.
pub fn anonymous(pieces: Vec<Piece>) -> Result<Vec<Piece>, String> {
    let names = Names::of(&pieces);
    let mut cores = Cores::default();
    pieces.into_iter().map(|piece| cores.rewrite(&names, piece)).collect()
}

/// The core that was recorded, and the one that takes its place.
#[derive(Default)]
struct Cores(Option<(Core, Core)>);

impl Cores {
    fn rewrite(&mut self, names: &Names, piece: Piece) -> Result<Piece, String> {
        Ok(match piece {
            Piece::Head(Head { version, member, started_at }) => {
                Piece::Head(Head { version, member: names.rewrite(&member)?, started_at })
            }
            Piece::Unreadable(unreadable) => {
                self.0 = None;
                Piece::Unreadable(unreadable)
            }
            Piece::Entry(Entry::Core(core)) => {
                let renamed: Core = names.rewrite(&**core)?;
                // One that goes on keeps the texts that it made of rewritten ones.
                let renamed = match self.0.take() {
                    Some((recorded, renamed)) if recorded == **core => renamed,
                    _ => renamed,
                };
                self.0 = Some((core.into_owned(), renamed.clone()));
                Piece::Entry(Entry::Core(Box::new(Cow::Owned(renamed))))
            }
            Piece::Entry(Entry::Gap { entries }) => {
                self.0 = None;
                Piece::Entry(Entry::Gap { entries })
            }
            Piece::Entry(Entry::Step { now, event, answer }) => {
                let event = event.into_owned();
                let renamed_event: Event = names.rewrite(&event)?;
                let answer = self.0.as_mut().map_or(answer, |(recorded, renamed)| {
                    let differs = digest(&recorded.step(now, event)) != answer;
                    let renamed = digest(&renamed.step(now, renamed_event.clone()));
                    if differs { renamed.map(|byte| !byte) } else { renamed }
                });
                Piece::Entry(Entry::Step { now, event: Box::new(Cow::Owned(renamed_event)), answer })
            }
            Piece::Entry(Entry::Asked { now, question, refused }) => {
                let question: Question = names.rewrite(&question)?;
                Piece::Entry(Entry::Asked { now, question, refused: names.rewrite(&refused)? })
            }
        })
    }
}

/// Of members, in an order that is that of their names: the core breaks ties by it.
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(pieces: &[Piece]) -> Names {
        let mut found = BTreeMap::new();
        let mut note = |id: &NodeId| drop(found.insert(id.to_string(), String::new()));
        for piece in pieces {
            match piece {
                Piece::Head(head) => note(&head.member),
                Piece::Entry(Entry::Core(core)) => core.names().for_each(&mut note),
                Piece::Entry(Entry::Step { event, .. }) => match event.as_ref().as_ref() {
                    Event::Members(members) => members.keys().for_each(&mut note),
                    Event::Peers(peers) => peers.keys().for_each(&mut note),
                    Event::Accepted { leader: member, .. } | Event::RivalHeard { member } => note(member),
                    _ => {}
                },
                Piece::Entry(Entry::Asked { question: Question::Vote { candidate }, .. }) => note(candidate),
                Piece::Entry(Entry::Asked { .. } | Entry::Gap { .. }) | Piece::Unreadable(_) => {}
            }
        }
        let width = found.len().to_string().len();
        found.values_mut().enumerate().for_each(|(nth, name)| *name = format!("member-{:0width$}", nth + 1));
        Names(found)
    }

    fn rewrite<T: Serialize + DeserializeOwned>(&self, whole: &T) -> Result<T, String> {
        let value = serde_json::to_value(whole).and_then(|value| serde_json::from_value(self.value(value)));
        value.map_err(|error| format!("a part of the record cannot be rewritten: {error}"))
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(key, value)| (self.key(key), self.value(value))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// The names of fields stay.
    fn key(&self, key: String) -> String {
        self.0.get(&key).cloned().unwrap_or(key)
    }

    fn text(&self, text: &str) -> String {
        let mut words = String::new();
        for word in text.split_inclusive(|c: char| c.is_whitespace() || QUOTES.contains(&c)) {
            let bare = word.trim_end_matches(|c: char| c.is_whitespace() || QUOTES.contains(&c));
            let bare = bare.trim_end_matches(['.', ':']);
            words.push_str(&self.word(bare));
            words.push_str(&word[bare.len()..]);
        }
        words
    }

    fn word(&self, word: &str) -> String {
        if let Some(name) = self.0.get(word) {
            return name.clone();
        }
        let host_and_port = |word: &str| word.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let is_address = word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok() || host_and_port(word);
        let is_key =
            word.len() >= KEY_CHARS_MIN && word.chars().all(|c| c.is_ascii_alphanumeric() || "+/=_-:".contains(c));
        match word {
            _ if is_address => "ADDRESS".to_owned(),
            _ if is_key => "KEY".to_owned(),
            _ if word.contains('/') || word.contains('@') => "PATH".to_owned(),
            _ => word.to_owned(),
        }
    }
}
