//! A mapping of the file whose keys are taken out one by one, so that what is left
//! over is what nobody knows.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};
use slim_identity::parse_duration;

/// Something in the file is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{reason}", path, if path.is_empty() { "" } else { ": " })]
pub(crate) struct ConfigError {
    path: String,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// The key at which it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// A mapping and the path that leads to it.
#[derive(Debug)]
pub(crate) struct Section {
    path: String,
    entries: Map<String, Value>,
    /// Keys that were asked for, whether they are there or not.
    known: BTreeSet<String>,
}

/// How much alike two keys are, of 1, if one may be meant by the other.
const LIKENESS: f64 = 0.7;

/// Path of a key.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Section {
    pub(crate) fn new(path: String, value: Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(entries) => Ok(Self { path, entries, known: BTreeSet::new() }),
            Value::Null => Ok(Self { path, entries: Map::new(), known: BTreeSet::new() }),
            _ => Err(ConfigError::new(path, "expected a mapping")),
        }
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// A nested mapping; empty if it is not there.
    pub(crate) fn section(&mut self, key: &str) -> Result<Self, ConfigError> {
        let value = self.take(key).unwrap_or(Value::Null);
        Self::new(join(&self.path, key), value)
    }

    /// Whatever is there, for who reads it in its own way.
    pub(crate) fn value(&mut self, key: &str) -> Option<Value> {
        self.take(key)
    }

    /// A nested mapping, if it is there.
    pub(crate) fn optional(&mut self, key: &str) -> Result<Option<Self>, ConfigError> {
        let path = join(&self.path, key);
        self.take(key).map(|value| Self::new(path, value)).transpose()
    }

    /// A list of mappings; empty if it is not there.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Self>, ConfigError> {
        let path = join(&self.path, key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| Self::new(format!("{path}[{index}]"), item))
                .collect(),
            Some(_) => Err(ConfigError::new(path, "expected a list")),
        }
    }

    /// A text. Numbers are texts too: who names a node 1 means "1".
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.unsupported(key, "expected a text")),
        }
    }

    /// A text that must not be anything else: of a number, YAML keeps the value and not
    /// what was written.
    pub(crate) fn secret(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.unsupported(key, "expected a text; write it in quotes")),
        }
    }

    /// Texts: one, or a list of them; none if it is not there.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<String>, ConfigError> {
        let is_list = matches!(self.entries.get(key), Some(Value::Array(_)));
        if !is_list {
            return Ok(self.text(key)?.into_iter().collect());
        }
        let Some(Value::Array(items)) = self.take(key) else { return Ok(Vec::new()) };
        let text = |(index, item)| match item {
            Value::String(text) => Ok(text),
            _ => Err(self.unsupported(&format!("{key}[{index}]"), "expected a text")),
        };
        items.into_iter().enumerate().map(text).collect()
    }

    /// A text that is parsed.
    pub(crate) fn parsed<T: FromStr>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| self.unsupported(key, &format!("{text:?} is not {expected}")))
    }

    /// `true` or `false`, which a reference gives as a text.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        match self.take(key) {
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            other => {
                self.put_back(key, other);
                self.parsed(key, "true or false")
            }
        }
    }

    /// A number that is not negative.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.parsed(key, "a whole number")
    }

    /// A number of at least `least`, as large as its type can hold.
    pub(crate) fn at_least<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        least: u64,
    ) -> Result<Option<T>, ConfigError> {
        let Some(number) = self.number(key)? else {
            return Ok(None);
        };
        if number < least {
            return Err(self.unsupported(key, &format!("{number} is less than {least}")));
        }
        let fits = T::try_from(number);
        fits.map(Some).map_err(|_| self.unsupported(key, &format!("{number} is too large")))
    }

    /// A duration such as `10s`, `1500ms` or `1h30m`.
    pub(crate) fn duration(&mut self, key: &str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        match parse_duration(&text) {
            Some(duration) => Ok(Some(duration)),
            None => {
                let reason = format!("{text:?} is not a duration such as 10s, 1500ms or 1h");
                Err(self.unsupported(key, &reason))
            }
        }
    }

    /// Fails if the key is there and says something.
    pub(crate) fn refuse(&mut self, key: &str, reason: &str) -> Result<(), ConfigError> {
        match self.take(key) {
            None => Ok(()),
            Some(Value::Array(items)) if items.is_empty() => Ok(()),
            Some(Value::Object(entries)) if entries.is_empty() => Ok(()),
            Some(_) => Err(self.unsupported(key, reason)),
        }
    }

    /// Notes that a key has no effect, if it is there.
    pub(crate) fn ignore(&mut self, key: &str, ignored: &mut Vec<String>) {
        if self.take(key).is_some() {
            ignored.push(join(&self.path, key));
        }
    }

    /// Notes that all that is left has no effect.
    pub(crate) fn ignore_rest(&mut self, ignored: &mut Vec<String>) {
        for key in self.keys() {
            self.ignore(&key, ignored);
        }
    }

    /// Fails if something is left.
    pub(crate) fn deny_rest(self) -> Result<(), ConfigError> {
        match self.entries.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.unsupported(key, &self.unknown(key))),
        }
    }

    /// That nobody knows a key, and which one may be meant.
    fn unknown(&self, key: &str) -> String {
        let likeness = |known: &String| match known.contains(key) || key.contains(&**known) {
            true => 1.0,
            false => strsim::jaro_winkler(key, known),
        };
        let nearest = self.known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        match nearest.filter(|known| likeness(known) > LIKENESS) {
            Some(known) => format!("unknown key, did you mean {known}?"),
            None => "unknown key".to_owned(),
        }
    }

    /// A key with the path that leads to it.
    pub(crate) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// An error at a key.
    pub(crate) fn unsupported(&self, key: &str, reason: &str) -> ConfigError {
        ConfigError::new(join(&self.path, key), reason)
    }

    /// An error of the whole mapping.
    pub(crate) fn itself(&self, reason: &str) -> ConfigError {
        ConfigError::new(&self.path, reason)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.insert(key.to_owned());
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    fn put_back(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.entries.insert(key.to_owned(), value);
        }
    }
}
