//! Names that begin alike.

use std::fmt;
use std::str::FromStr;

use crate::{Name, NameId, name};

/// The beginning of names: `org`, `org/ns`, `org/ns/app`, or one instance,
/// `org/ns/app/<uuid>`. Whole parts count: `org/ns` is not the beginning of
/// `org/nsx/app`. Compared by hashes, as a node routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePrefix {
    components: Vec<u64>,
    id: Option<NameId>,
    text: String,
}

impl NamePrefix {
    /// Whether the name begins so.
    pub fn matches(&self, name: &Name) -> bool {
        name.components().starts_with(&self.components) && self.id.is_none_or(|id| id == name.id())
    }
}

/// As it is read.
impl fmt::Display for NamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One to three parts, spaces around each ignored; or four, the last a UUID.
impl FromStr for NamePrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let refused = || PrefixError { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').map(str::trim).collect();
        if parts.len() == 4 {
            let name: Name = text.parse().map_err(|_| refused())?;
            let components = name.components().to_vec();
            return Ok(Self { components, id: Some(name.id()), text: name.to_string() });
        }
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(refused());
        }
        let components = parts.iter().map(|part| name::hash_component(part)).collect();
        Ok(Self { components, id: None, text: parts.join("/") })
    }
}

/// The text is not the beginning of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the beginning of a name: expected org, org/ns, org/ns/app or org/ns/app/<uuid>"
)]
pub struct PrefixError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_count() {
        let one = "a/b/c/ee23cd86-c165-f549-3bcd-cd4cde967fbd";
        for (prefix, name, matches) in [
            ("a", "a/b/c", true),
            ("a", "ab/b/c", false),
            ("a/b", "a/b/c", true),
            ("a/b", "a/bb/c", false),
            ("a/b/c", "a/b/c", true),
            ("a/b/c", one, true),
            ("a/b/c", "a/b/cc", false),
            (" a / b ", "a/b/c", true),
            (one, one, true),
            (one, "a/b/c", false),
        ] {
            let read: NamePrefix = prefix.parse().unwrap();
            assert_eq!(read.matches(&name.parse().unwrap()), matches, "{prefix} {name}");
            assert_eq!(read.to_string().parse(), Ok(read));
        }
    }

    #[test]
    fn what_is_no_beginning_is_refused_and_named() {
        for text in ["", "/", "a/", "/a", "a//c", "a/b/c/d", "a/b/c/d/e", " "] {
            let error = text.parse::<NamePrefix>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
