//! What can stand behind a key: texts, numbers, durations, words, lists.
//!
//! Where a number or a truth value is expected, a text that says it will do, for a
//! reference gives a text; where a text is expected, a number will.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use slim_auth::Algorithm;
use slim_identity::parse_duration;
use slim_node::{Endpoint, NamePattern, Principal, Target, TlsVersion, Topology};
use tracing::Level;

use super::error::ConfigError;
use super::setting::{Mapping, Setting, Shape, entries, join, listed};

/// What stands for a value that is elsewhere, as a regular expression.
pub(super) const REFERENCE: &str = r"\$\{(env|file):.*\}";

fn value(words: impl Into<String>, schema: Value) -> Shape {
    Shape::Value { words: words.into(), schema }
}

impl<T: Setting> Setting for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn is_required() -> bool {
        false
    }

    fn absent(_: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        Ok(None)
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        T::read(value, path, ignored).map(Some)
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn shape() -> Shape {
        Shape::List(0, Box::new(T::shape()))
    }

    fn is_required() -> bool {
        false
    }

    fn absent(_: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        Ok(Self::new())
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        let Value::Array(items) = value else {
            return Err(ConfigError::shape(path, "expected a list"));
        };
        let item = |(index, item)| T::read(item, &format!("{path}[{index}]"), ignored);
        items.into_iter().enumerate().map(item).collect()
    }
}

/// A list with something in it.
pub(crate) struct AtLeastOne<T>(pub(crate) Vec<T>);

impl<T: Setting> Setting for AtLeastOne<T> {
    fn shape() -> Shape {
        Shape::List(1, Box::new(T::shape()))
    }

    fn absent(path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        Err(ConfigError::shape(path, "required"))
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        match Vec::read(value, path, ignored)? {
            items if items.is_empty() => Self::absent(path, ignored),
            items => Ok(Self(items)),
        }
    }
}

fn text(value: Value, path: &str) -> Result<String, ConfigError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Err(ConfigError::shape(path, "required")),
        _ => Err(ConfigError::shape(path, "expected a text")),
    }
}

/// A text. Numbers are texts too: who names a node 1 means "1".
impl Setting for String {
    fn shape() -> Shape {
        value("text", json!({ "type": ["string", "number"] }))
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        text(value, path)
    }
}

impl Setting for PathBuf {
    fn shape() -> Shape {
        value("path", json!({ "type": ["string", "number"] }))
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        text(value, path).map(Self::from)
    }
}

/// A text that must not be anything else: of a number, YAML keeps the value and not what
/// was written.
pub(crate) struct Verbatim(pub(crate) String);

impl Setting for Verbatim {
    fn shape() -> Shape {
        value("text, in quotes if it could be a number", json!({ "type": "string" }))
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        match value {
            Value::String(text) => Ok(Self(text)),
            Value::Null => Err(ConfigError::shape(path, "required")),
            _ => Err(ConfigError::shape(path, "expected a text; write it in quotes")),
        }
    }
}

/// One text or a list of them, each parsed; none if nothing is said.
pub(crate) struct Texts<T = String>(pub(crate) Vec<T>);

/// What a text of a list may say.
pub(crate) trait Word: FromStr<Err: Display> {
    const WORDS: &str;
    const EXAMPLE: &str;
    /// Whether blanks around it are nothing.
    const IS_TRIMMED: bool = true;
}

impl Word for String {
    const WORDS: &str = "text";
    const EXAMPLE: &str = "some-text";
    const IS_TRIMMED: bool = false;
}

impl Word for slim_node::PrincipalPattern {
    const WORDS: &str = "principal";
    const EXAMPLE: &str = "basic:alice";
}

impl Word for NamePattern {
    const WORDS: &str = "pattern of names";
    const EXAMPLE: &str = "acme/demo/alice";
}

impl<T: Word> Setting for Texts<T> {
    fn shape() -> Shape {
        let schema = json!({
            "type": ["string", "number", "array"],
            "items": { "type": "string" },
            "examples": [[T::EXAMPLE]],
        });
        value(format!("{}, or a list of them", T::WORDS), schema)
    }

    fn is_required() -> bool {
        false
    }

    fn absent(_: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        Ok(Self(Vec::new()))
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        let parse = |index: usize, text: &str| {
            let parsed = if T::IS_TRIMMED { text.trim() } else { text }.parse();
            parsed.map_err(|error: T::Err| {
                ConfigError::new(format!("{path}[{index}]"), error.to_string())
            })
        };
        let Value::Array(items) = value else {
            return Ok(Self(vec![parse(0, &text(value, path)?)?]));
        };
        let read = |(index, item): (usize, Value)| match item {
            Value::String(text) => parse(index, &text),
            _ => Err(ConfigError::shape(format!("{path}[{index}]"), "expected a text")),
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// A text that says something of this kind.
fn parsed<T: FromStr>(value: Value, path: &str, expected: &str) -> Result<T, ConfigError> {
    let text = text(value, path)?;
    text.parse().map_err(|_| ConfigError::new(path, format!("{text:?} is not {expected}")))
}

/// `true` or `false`, which a reference gives as a text.
impl Setting for bool {
    fn shape() -> Shape {
        let pattern = format!("^(true|false|{REFERENCE})$");
        let schema = json!({ "type": ["boolean", "string"], "pattern": pattern });
        value("`true` or `false`", schema)
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        const EXPECTED: &str = "true or false";
        match value {
            Value::Bool(flag) => Ok(flag),
            Value::String(_) => parsed(value, path, EXPECTED),
            _ => Err(ConfigError::shape(path, format!("expected {EXPECTED}"))),
        }
    }
}

/// A whole number of at least `LEAST`, as large as its type can hold.
#[derive(Clone, Copy)]
pub(crate) struct AtLeast<const LEAST: u64, T = u64>(pub(crate) T);

impl<const LEAST: u64, T: TryFrom<u64>> Setting for AtLeast<LEAST, T> {
    fn shape() -> Shape {
        let pattern = format!("^([0-9]+|{REFERENCE})$");
        let schema = json!({ "type": ["integer", "string"], "minimum": LEAST, "pattern": pattern });
        let least = if LEAST == 0 { String::new() } else { format!(", at least {LEAST}") };
        value(format!("whole number{least}"), schema)
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        const EXPECTED: &str = "a whole number";
        if !matches!(value, Value::String(_) | Value::Number(_)) {
            return Err(ConfigError::shape(path, format!("expected {EXPECTED}")));
        }
        let number: u64 = parsed(value, path, EXPECTED)?;
        if number < LEAST {
            return Err(ConfigError::new(path, format!("{number} is less than {LEAST}")));
        }
        let fits = T::try_from(number);
        fits.map(Self).map_err(|_| ConfigError::new(path, format!("{number} is too large")))
    }
}

/// Headers of a request, which may be secrets.
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Setting for Headers {
    fn shape() -> Shape {
        let schema = json!({
            "type": "object",
            "additionalProperties": { "type": "string" },
            "examples": [{ "authorization": "some-text" }],
        });
        value("mapping of names to texts, in quotes if they could be numbers", schema)
    }

    fn is_required() -> bool {
        false
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        let header = |(name, value): (String, Value)| {
            let Verbatim(value) = Verbatim::read(value, &join(path, &name), ignored)?;
            Ok((name, value))
        };
        entries(value, path)?.into_iter().map(header).collect::<Result<_, _>>().map(Self)
    }
}

/// A duration such as `10s`, `1500ms` or `1h30m`.
impl Setting for Duration {
    fn shape() -> Shape {
        let pattern = format!(r"^(\s*([0-9]+(ms|s|m|h)\s*)+|{REFERENCE})$");
        let schema = json!({ "type": "string", "pattern": pattern, "examples": ["10s"] });
        value("duration", schema)
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        let text = text(value, path)?;
        parse_duration(&text).ok_or_else(|| {
            let reason = format!("{text:?} is not a duration such as 10s, 1500ms or 1h");
            ConfigError::shape(path, reason)
        })
    }
}

/// A duration as a file says it, to the millisecond.
pub(crate) fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    let fits = |each: u128| millis > 0 && millis.is_multiple_of(each);
    match millis {
        _ if fits(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if fits(60_000) => format!("{}m", millis / 60_000),
        _ if fits(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Settings that are parsed, with what is expected and one that is fine.
macro_rules! texts {
    ($($kind:ty: $expected:expr, $example:literal;)*) => { $(
        impl Setting for $kind {
            fn shape() -> Shape {
                value($expected, json!({ "type": "string", "examples": [$example] }))
            }

            fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
                parsed(value, path, $expected)
            }
        }
    )* };
}

texts! {
    SocketAddr: "a numeric address and a port, such as 127.0.0.1:9464", "127.0.0.1:9464";
    Endpoint: "a numeric address and a port, such as 127.0.0.1:46357, the same after ws:// or \
        wss://, or unix:///path", "127.0.0.1:46357";
    Principal: "basic:USER, jwt:SUBJECT, spiffe://DOMAIN/PATH or dns:NAME", "dns:b.example.org";
    Target: "an address: HOST:PORT, the same after http://, https://, ws:// or wss://, or \
        unix:///path", "https://b.example.org:46357";
}

/// One of a few words; the others are taken, too.
fn words(words: &[&str], others: &[&str]) -> Shape {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    let all = [words, others].concat();
    let schema = json!({ "anyOf": [
        { "enum": all },
        { "type": "string", "pattern": format!("^{REFERENCE}$") },
    ] });
    value(listed(&quoted.iter().map(String::as_str).collect::<Vec<_>>()), schema)
}

/// Settings that are one of a few words. Those after the first list are spellings that are
/// taken, too.
macro_rules! words {
    ($($(#[doc = $about:literal])* $kind:ty {
        $($word:literal => $value:expr),*; $($other:literal => $same:expr),*
    })*) => { $(
        impl Setting for $kind {
            fn shape() -> Shape {
                words(&[$($word),*], &[$($other),*])
            }

            fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
                let text = text(value, path)?;
                match &*text {
                    $($word => Ok($value),)*
                    $($other => Ok($same),)*
                    _ => {
                        let reason = format!("{text:?} is not {}", listed(&[$($word),*]));
                        Err(ConfigError::shape(path, reason))
                    }
                }
            }
        }
    )* };
}

/// How a key is written.
pub(crate) enum KeyFormat {
    Pem,
    Jwk,
    Jwks,
}

/// The only format in which a key that signs is read.
pub(crate) struct PemFormat;

words! {
    Level {
        "trace" => Self::TRACE, "debug" => Self::DEBUG, "info" => Self::INFO,
        "warn" => Self::WARN, "error" => Self::ERROR;
        "TRACE" => Self::TRACE, "DEBUG" => Self::DEBUG, "INFO" => Self::INFO,
        "WARN" => Self::WARN, "ERROR" => Self::ERROR
    }
    TlsVersion { "tls1.3" => Self::Tls13, "tls1.2" => Self::Tls12; }
    Topology { "full_mesh" => Self::FullMesh, "relay" => Self::Relay; }
    KeyFormat { "pem" => Self::Pem, "jwk" => Self::Jwk, "jwks" => Self::Jwks; }
    PemFormat { "pem" => Self; }
}

impl Setting for Algorithm {
    fn shape() -> Shape {
        words(&Self::ALL.map(Self::as_str), &[])
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        let parsed = text(value, path)?.parse();
        parsed.map_err(|error: slim_auth::UnknownAlgorithm| {
            ConfigError::shape(path, error.to_string())
        })
    }
}

/// Services: one, whose name the user chooses.
pub(crate) struct Named<T> {
    pub(crate) entry: T,
}

/// What a service is called.
const SERVICE: &str = "^slim/[a-z0-9-]+$";

impl<T: Mapping> Setting for Named<T> {
    fn shape() -> Shape {
        Shape::Named { pattern: SERVICE, name: "slim/0", shape: Box::new(T::shape()) }
    }

    fn absent(path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        Err(ConfigError::shape(path, "required, with one entry such as slim/0"))
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        let is_name = |name: &str| {
            let is_part = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
            !name.is_empty() && name.bytes().all(is_part)
        };
        let mut entries = entries(value, path)?.into_iter();
        let Some((key, value)) = entries.next() else { return Self::absent(path, ignored) };
        let error = |key: &str, reason| Err(ConfigError::shape(join(path, key), reason));
        if let Some((second, _)) = entries.next() {
            return error(&second, "a second service is not supported");
        }
        if !key.strip_prefix("slim/").is_some_and(is_name) {
            return error(&key, "expected slim/ and a name of a-z, 0-9 and -");
        }
        T::read(value, &join(path, &key), ignored).map(|entry| Self { entry })
    }
}

/// What somebody else reads; the keys are known all the same.
pub(crate) struct Checked<T> {
    pub(crate) value: Value,
    _kind: std::marker::PhantomData<T>,
}

impl<T: Setting> Setting for Checked<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn read(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Self, ConfigError> {
        T::read(value.clone(), path, ignored)?;
        Ok(Self { value, _kind: std::marker::PhantomData })
    }
}
