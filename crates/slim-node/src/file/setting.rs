//! What can stand in a file: each mapping is a type, each key of it a field, and reader,
//! schema and manual come from the same declaration.
//!
//! [`mapping!`] declares a mapping and [`choice!`] one whose keys depend on its `type`;
//! `value.rs` has what stands behind a key. A key that is declared is read, and one that
//! nobody uses then is an unused field, which the compiler finds.

use serde_json::{Map, Value};

use super::error::ConfigError;

/// Something that a file says.
pub(crate) trait Setting: Sized {
    /// What it looks like.
    fn shape() -> Shape;

    /// Whether it has to be there.
    fn is_required() -> bool {
        true
    }

    /// What it is where nothing is said.
    fn absent(path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        Self::read(Value::Null, path, ignored)
    }

    /// Reads what is said at `path`. Keys without effect go to `ignored`.
    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError>;
}

/// What a setting looks like.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A value without keys of its own.
    Value {
        /// What it is, for people.
        words: String,
        /// The JSON schema of it.
        schema: Value,
    },
    Mapping(MappingShape),
    /// One of several mappings, told apart by `type`.
    Choice {
        variants: Vec<(&'static str, MappingShape)>,
        refused: &'static [(&'static str, &'static str)],
    },
    /// A list, of at least so many.
    List(usize, Box<Self>),
    /// A mapping with one entry, whose key the user chooses.
    Named {
        pattern: &'static str,
        name: &'static str,
        shape: Box<Self>,
    },
    /// Whatever it says, it has no effect.
    Ignored,
    /// It may be there, but must not ask for anything.
    Refused,
}

/// A mapping and its keys.
#[derive(Debug)]
pub(crate) struct MappingShape {
    /// Which type it is.
    pub(crate) name: &'static str,
    pub(crate) about: Lines,
    pub(crate) keys: Vec<Key>,
    /// Of each of these, one has to be there.
    pub(crate) demands: &'static [Demand],
}

impl MappingShape {
    /// Whether something has to be said.
    pub(crate) fn is_required(&self) -> bool {
        !self.demands.is_empty() || self.keys.iter().any(|key| (key.is_required)())
    }
}

/// Keys of which one has to be there, and why.
pub(crate) type Demand = (&'static [&'static str], &'static str);

/// A key of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) about: Lines,
    pub(crate) shape: fn() -> Shape,
    pub(crate) is_required: fn() -> bool,
    pub(crate) default: fn() -> Option<Value>,
}

impl Key {
    pub(crate) fn new<T: Setting>(
        name: &'static str,
        about: Lines,
        default: fn() -> Option<Value>,
    ) -> Self {
        Self { name, about, shape: T::shape, is_required: T::is_required, default }
    }

    pub(crate) fn without_effect(name: &'static str, about: Lines, shape: fn() -> Shape) -> Self {
        Self { name, about, shape, is_required: || false, default: || None }
    }
}

/// The lines of a comment.
pub(crate) type Lines = &'static [&'static str];

/// The lines of a comment, as one.
pub(crate) fn prose(lines: Lines) -> String {
    lines.concat().trim().to_owned()
}

/// A mapping with keys that are known.
pub(crate) trait Mapping: Sized {
    fn mapping() -> MappingShape;

    /// Takes its keys out.
    fn take(entries: &mut Entries<'_>) -> Result<Self, ConfigError>;

    /// Reads a mapping of which no key may be left.
    fn read_all(
        value: Value,
        path: &str,
        ignored: &mut Vec<String>,
        tag: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        let entries = entries(value, path)?;
        let shape = Self::mapping();
        let known: Vec<_> = shape.keys.iter().map(|key| key.name).chain(tag).collect();
        if let Some(key) = entries.keys().find(|key| !known.contains(&&***key)) {
            return Err(ConfigError::shape(join(path, key), unknown(key, &known)));
        }
        let mut entries = Entries { path, entries, ignored };
        entries.entries.retain(|_, value| !value.is_null());
        for (keys, reason) in shape.demands {
            if !keys.iter().any(|key| entries.entries.contains_key(*key)) {
                return Err(ConfigError::shape(path, *reason));
            }
        }
        Self::take(&mut entries)
    }
}

impl<T: Mapping> Setting for T {
    fn shape() -> Shape {
        Shape::Mapping(T::mapping())
    }

    fn is_required() -> bool {
        T::mapping().is_required()
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        T::read_all(value, path, ignored, None)
    }
}

/// What a mapping holds; nothing where nothing is said.
pub(super) fn entries(value: Value, path: &str) -> Result<Map<String, Value>, ConfigError> {
    match value {
        Value::Object(entries) => Ok(entries),
        Value::Null => Ok(Map::new()),
        _ => Err(ConfigError::shape(path, "expected a mapping")),
    }
}

/// A mapping out of which keys are taken.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    path: &'a str,
    entries: Map<String, Value>,
    ignored: &'a mut Vec<String>,
}

impl Entries<'_> {
    pub(crate) fn read<T: Setting>(&mut self, key: &str) -> Result<T, ConfigError> {
        let path = join(self.path, key);
        match self.entries.remove(key) {
            None => T::absent(&path, self.ignored),
            Some(value) => T::read(value, &path, self.ignored),
        }
    }

    pub(crate) fn ignore(&mut self, key: &str) {
        if self.entries.remove(key).is_some() {
            self.ignored.push(join(self.path, key));
        }
    }

    /// Fails if the key says something.
    pub(crate) fn refuse(&mut self, key: &str, reason: &str) -> Result<(), ConfigError> {
        let says_nothing = match self.entries.remove(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(value) => value == "false",
        };
        let path = || join(self.path, key);
        if says_nothing { Ok(()) } else { Err(ConfigError::shape(path(), reason)) }
    }

    pub(crate) fn place(&self) -> Place {
        Place { path: self.path.to_owned(), given: self.entries.keys().cloned().collect() }
    }
}

/// Where a mapping stands, and which keys it has.
#[derive(Debug)]
pub(crate) struct Place {
    path: String,
    given: Vec<String>,
}

impl Place {
    /// An error of the whole mapping.
    pub(crate) fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::new(&self.path, reason)
    }

    /// An error at a key.
    pub(crate) fn error_at(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::new(join(&self.path, key), reason)
    }

    /// Whether nothing is said here.
    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Notes that keys have no effect here, if they are there.
    pub(crate) fn ignore(&self, keys: &[&str], ignored: &mut Vec<String>) {
        self.ignore_if(|key| keys.contains(&key), ignored);
    }

    /// Notes that all keys but one have no effect here.
    pub(crate) fn ignore_all_but(&self, key: &str, ignored: &mut Vec<String>) {
        self.ignore_if(|other| other != key, ignored);
    }

    fn ignore_if(&self, is_meant: impl Fn(&str) -> bool, ignored: &mut Vec<String>) {
        let meant = self.given.iter().filter(|key| is_meant(key));
        ignored.extend(meant.map(|key| join(&self.path, key)));
    }
}

/// Path of a key.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// How much alike two keys are, of 1, if one may be meant by the other.
const LIKENESS: f64 = 0.7;

/// That nobody knows a key, and which one may be meant.
fn unknown(key: &str, known: &[&str]) -> String {
    let likeness = |known: &str| match known.contains(key) || key.contains(known) {
        true => 1.0,
        false => strsim::jaro_winkler(key, known),
    };
    let alike = known.iter().map(|known| (likeness(known), known));
    match alike.filter(|(likeness, _)| *likeness > LIKENESS).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, known)) => format!("unknown key, did you mean {known}?"),
        None => "unknown key".to_owned(),
    }
}

/// Declares a mapping: a field for each key, with its comment and after `=` its default,
/// as it would stand in a file. It has no `Debug`, for some hold passwords and keys.
///
/// `flat` are parts that other mappings have, too; `checked` keys are read, and what they
/// say is not needed; `ignored` keys are known and have no effect; `refused` ones are an
/// error as soon as they ask for something; of each list in `demands` one key has to be
/// there.
macro_rules! mapping {
    (
        $(#[doc = $about:literal])*
        $(#[expect($($lint:tt)*)])?
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $kind:ty $(= $default:expr)?, )*
        }
        $( flat { $( $part:ident: $part_kind:ty, )* } )?
        $( checked { $( $(#[doc = $it:literal])* $fact:ident: $fact_kind:ty, )* } )?
        $( ignored { $( $no:ident: $why:literal, )* } )?
        $( refused { $( $bad:ident: $reason:literal, )* } )?
        $( demands { $( [$( $one:literal ),*]: $lack:literal, )* } )?
    ) => {
        $(#[doc = $about])*
        $(#[expect($($lint)*)])?
        $vis struct $name {
            #[allow(dead_code, reason = "not each is asked where it stands")]
            $vis place: super::setting::Place,
            $( $(#[doc = $doc])* $vis $key: $kind, )*
            $( $( $vis $part: $part_kind, )* )?
        }

        impl super::setting::Mapping for $name {
            fn mapping() -> super::setting::MappingShape {
                #[allow(unused_imports, reason = "not each mapping has all of it")]
                use super::setting::{Key, Mapping, MappingShape, Shape};
                let own: Vec<Key> = vec![
                    $( Key::new::<$kind>(
                        stringify!($key),
                        &[$($doc),*],
                        || super::setting::mapping!(@default $($default)?),
                    ), )*
                    $( $( Key::new::<$fact_kind>(stringify!($fact), &[$($it),*], || None), )* )?
                    $( $( Key::without_effect(stringify!($no), &[$why], || Shape::Ignored), )* )?
                    $( $( Key::without_effect(stringify!($bad), &[$reason], || Shape::Refused), )* )?
                ];
                let parts: Vec<Vec<Key>> = vec![$( $( <$part_kind>::mapping().keys, )* )?];
                MappingShape {
                    name: stringify!($name),
                    about: &[$($about),*],
                    keys: own.into_iter().chain(parts.into_iter().flatten()).collect(),
                    demands: &[$( $( (&[$($one),*], $lack), )* )?],
                }
            }

            fn take(
                entries: &mut super::setting::Entries<'_>,
            ) -> Result<Self, super::error::ConfigError> {
                let place = entries.place();
                $( let $key = entries.read(stringify!($key))?; )*
                $( $( let $part = <$part_kind>::take(entries)?; )* )?
                $( $( entries.read::<$fact_kind>(stringify!($fact))?; )* )?
                $( $( entries.ignore(stringify!($no)); )* )?
                $( $( entries.refuse(stringify!($bad), $reason)?; )* )?
                Ok(Self { place, $( $key, )* $( $( $part, )* )? })
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some(serde_json::Value::from($default)) };
}

/// Declares a mapping whose other keys depend on `type`.
macro_rules! choice {
    (
        $(#[doc = $about:literal])*
        $(#[expect($($lint:tt)*)])?
        $vis:vis enum $name:ident { $( $tag:literal => $variant:ident($kind:ty), )* }
        $( refused { $( $bad:literal: $reason:literal, )* } )?
    ) => {
        $(#[doc = $about])*
        $(#[expect($($lint)*)])?
        $vis enum $name { $( $variant($kind), )* }

        impl $name {
            const REFUSED: &[(&str, &str)] = &[$( $( ($bad, $reason), )* )?];
        }

        impl super::setting::Setting for $name {
            fn shape() -> super::setting::Shape {
                super::setting::Shape::Choice {
                    variants: vec![
                        $( ($tag, <$kind as super::setting::Mapping>::mapping()), )*
                    ],
                    refused: Self::REFUSED,
                }
            }

            fn read(
                value: serde_json::Value,
                path: &str,
                ignored: &mut Vec<String>,
            ) -> Result<Self, super::error::ConfigError> {
                use super::setting::{Mapping as _, entries, kind};
                let mut entries = entries(value, path)?;
                let tag = kind(&mut entries, path, &[$($tag),*], Self::REFUSED)?;
                match &*tag {
                    $( $tag => <$kind>::read_all(entries.into(), path, ignored, Some("type"))
                        .map(Self::$variant), )*
                    _ => unreachable!("it is one of these"),
                }
            }
        }
    };
}

pub(crate) use {choice, mapping};

/// Takes `type` out, which has to be one of `known`.
pub(crate) fn kind(
    entries: &mut Map<String, Value>,
    path: &str,
    known: &[&str],
    refused: &[(&str, &str)],
) -> Result<String, ConfigError> {
    let error = |reason: String| Err(ConfigError::shape(join(path, "type"), reason));
    match entries.remove("type").unwrap_or(Value::Null) {
        Value::Null => error(format!("required: {}", listed(known))),
        Value::String(text) => match refused.iter().find(|(bad, _)| *bad == text) {
            Some((_, reason)) => error((*reason).to_owned()),
            None if known.contains(&&*text) => Ok(text),
            None => error(format!("{text:?} is not {}", listed(known))),
        },
        _ => error(format!("expected {}", listed(known))),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
