//! Names: three readable parts, their hashes, and the id of an instance.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use xxhash_rust::{xxh3::xxh3_128_with_seed, xxh64::Xxh64};

/// Which instance of a name. 128 bits; all ones is the wildcard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u128);

impl NameId {
    /// Any instance.
    pub const ANY: Self = Self(u128::MAX);

    /// Ids from here on are reserved.
    const RESERVED: u128 = u128::MAX - 50;

    /// The id of the application whose identity has this subject.
    pub fn of_subject(subject: &str) -> Self {
        let id = xxh3_128_with_seed(subject.as_bytes(), 0);
        Self(if id >= Self::RESERVED { id % Self::RESERVED } else { id })
    }

    /// True for [`NameId::ANY`].
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    fn of_channel(text: &str, seed: u64) -> Self {
        let id = xxh3_128_with_seed(text.as_bytes(), seed);
        Self(if id >= Self::RESERVED { id % (u128::MAX - 51) + 1 } else { id })
    }
}

/// As a UUID; the wildcard as `NULL_COMPONENT`.
impl fmt::Display for NameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("NULL_COMPONENT");
        }
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for NameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a name's readable parts, slashes included, from which on only its hashes are
/// shown.
const MAX_SHOWN_LEN: usize = 256;

/// What a node routes by: three hashes and an id. The readable parts do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName {
    /// Hashes of the three parts.
    pub components: [u64; 3],
    /// The instance; an id that is absent on the wire reads as [`NameId::ANY`].
    pub id: NameId,
}

/// A name as it travels: hashes, optionally an id, optionally the readable
/// parts. Cheap to clone. Two names are equal if they are equal on the wire;
/// MACs, signatures and rosters depend on each part being kept as it came.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    components: [u64; 3],
    id: Option<NameId>,
    text: Option<Arc<[String; 3]>>,
}

impl Name {
    /// A name of any instance.
    ///
    /// # Errors
    /// If a part is empty or contains a `/`.
    pub fn new(org: &str, namespace: &str, app: &str) -> Result<Self, NameError> {
        let parts = [org, namespace, app].map(|part| part.trim().to_owned());
        if parts.iter().any(|part| part.is_empty() || part.contains('/')) {
            return Err(NameError::new(&parts.join("/")));
        }
        Ok(Self {
            components: [0, 1, 2].map(|i| hash_component(&parts[i])),
            id: Some(NameId::ANY),
            text: Some(Arc::new(parts)),
        })
    }

    /// A name from its parts on the wire. `None` if the readable parts do not
    /// hash to the components: such a name would be shown as what it is not.
    pub fn from_parts(
        components: [u64; 3],
        id: Option<NameId>,
        text: Option<[String; 3]>,
    ) -> Option<Self> {
        let honest = text
            .as_ref()
            .is_none_or(|text| [0, 1, 2].map(|i| hash_component(&text[i])) == components);
        honest.then(|| Self { components, id, text: text.map(Arc::new) })
    }

    /// The same name, this instance.
    #[must_use]
    pub fn with_id(&self, id: NameId) -> Self {
        Self { id: Some(id), ..self.clone() }
    }

    /// The same name, any instance.
    #[must_use]
    pub fn without_id(&self) -> Self {
        self.with_id(NameId::ANY)
    }

    /// The same name without its readable parts.
    #[must_use]
    pub fn without_text(&self) -> Self {
        Self { text: None, ..self.clone() }
    }

    /// Hashes of the three parts.
    pub fn components(&self) -> [u64; 3] {
        self.components
    }

    /// The instance; [`NameId::ANY`] if the name has none.
    pub fn id(&self) -> NameId {
        self.id.unwrap_or(NameId::ANY)
    }

    /// The id as it is on the wire, where it may be absent.
    pub fn wire_id(&self) -> Option<NameId> {
        self.id
    }

    /// The name for a page, a log or a trace: without its readable parts if they are
    /// longer than 256 bytes, which is up to whoever made it.
    #[must_use]
    pub fn shown(self) -> Self {
        let len = self.text().map_or(0, |text| text.iter().map(String::len).sum::<usize>() + 2);
        if len <= MAX_SHOWN_LEN { self } else { self.without_text() }
    }

    /// The readable parts, if the name carries them.
    pub fn text(&self) -> Option<&[String; 3]> {
        self.text.as_deref()
    }

    /// What a node routes by.
    pub fn route(&self) -> RouteName {
        RouteName { components: self.components, id: self.id() }
    }

    /// Whether both are instances of the same readable name.
    pub fn same_app(&self, other: &Self) -> bool {
        self.components == other.components
    }

    /// `org/ns/app` without the id, for people.
    pub fn readable(&self) -> String {
        match &self.text {
            Some(text) => text.join("/"),
            None => {
                let [a, b, c] = self.components;
                format!("{a:016x}/{b:016x}/{c:016x}")
            }
        }
    }

    /// Data and control name of the group with this name, made by the
    /// application whose identity has `subject`.
    pub fn channels(&self, subject: &str) -> crate::Channels {
        let text = self.readable();
        let id = |role, seed| NameId::of_channel(&format!("{subject}/{text}/{role}"), seed);
        // The seed is raised only if both ids are equal, which has never been seen.
        let (data, control) = (0..=10)
            .map(|seed| (id("data", seed), id("control", seed)))
            .find(|(data, control)| data != control)
            .unwrap_or_else(|| (id("data", 0), id("control", 0)));
        crate::Channels { data: self.with_id(data), control: self.with_id(control) }
    }
}

/// `org/ns/app`, or `org/ns/app/<uuid>` for one instance.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.readable())?;
        match self.id() {
            NameId::ANY => Ok(()),
            id => write!(f, "/{id}"),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Three parts, `org/ns/app`, spaces around each ignored; or four, the last a UUID.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [org, namespace, app] => Self::new(org, namespace, app),
            [org, namespace, app, id] => {
                let id = parse_uuid(id.trim()).ok_or_else(|| NameError::new(text))?;
                Self::new(org, namespace, app).map(|name| name.with_id(id))
            }
            _ => Err(NameError::new(text)),
        }
        .map_err(|_| NameError::new(text))
    }
}

/// The text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: expected three parts like org/ns/app, optionally followed by /<uuid>"
)]
pub struct NameError {
    text: String,
}

impl NameError {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned() }
    }
}

/// The string hashing convention appends 0xFF.
pub(crate) fn hash_component(text: &str) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(text.as_bytes());
    hash.update(&[0xFF]);
    hash.digest()
}

fn parse_uuid(text: &str) -> Option<NameId> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_hex = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    if lengths != [8, 4, 4, 4, 12] || !is_hex {
        return None;
    }
    u128::from_str_radix(&groups.concat(), 16).ok().map(NameId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn components_hash_with_the_extra_byte() {
        for (text, hash) in [
            ("", 0x95634172a60b7544),
            ("a", 0x3ff5008a504a5280),
            ("org", 0x873e580376ea963b),
            ("acme", 0xf685e3e03791a023),
            ("demo", 0x4948e8d027952bde),
            ("alice", 0x7b90bc8fa5b6b182),
            ("bob", 0x49ae1b437ae573c4),
            ("agntcy", 0x169ca82eb17d6bc2),
            ("trace", 0x3c337ce50c6ec39d),
            ("mod", 0xe836ae1ea7012080),
            ("naïve", 0xbd05d3de9250c5f9),
        ] {
            assert_eq!(hash_component(text), hash, "{text:?}");
        }
    }

    #[test]
    fn app_id_is_the_hash_of_the_subject() {
        for (subject, id) in [
            ("acme/demo/alice_2B5PkucI", "ee23cd86-c165-f549-3bcd-cd4cde967fbd"),
            ("org/trace/mod_ePlB6BaZ", "bacf0ce6-9e1b-bdd5-3dd3-84b0cd014cfb"),
            ("org/trace/alice_7ZaqQOgB", "651577db-f3f5-060c-9d8a-9b49984775f2"),
            (
                "did:key:z6Mkfvtar6ATQYC5jXqVLBjCH8R6AUAuKjta6LsFcG4gUND1",
                "48b1da60-0caa-b75f-a73e-4fe334bf1482",
            ),
        ] {
            assert_eq!(NameId::of_subject(subject).to_string(), id);
        }
    }

    #[test]
    fn channel_ids_follow_from_the_moderator() {
        let check = |name: &str, subject: &str, data: u128, control: u128| {
            let channels = name.parse::<Name>().unwrap().channels(subject);
            assert_eq!((channels.data.id().0, channels.control.id().0), (data, control));
        };
        check(
            "acme/demo/channel",
            "acme/demo/mod_RB3rDbOw",
            0x7d1bd99dc5aea522d12ec6367783d80a,
            0xaffa380c95871f31c11dc249f92d62a3,
        );
        check(
            "org/trace/chan2",
            "org/trace/mod_AJP9AQsM",
            0x66fd9a71a795f32ab3768069f89cec7e,
            0x3c0078c4fb87f2751f64c3b83771341a,
        );
    }

    #[test]
    fn names_parse_and_print() {
        let name: Name = " acme / demo/alice".parse().unwrap();
        assert_eq!(name.to_string(), "acme/demo/alice");
        assert!(name.id().is_any());
        let one = "acme/demo/alice/ee23cd86-c165-f549-3bcd-cd4cde967fbd";
        let instance: Name = one.parse().unwrap();
        assert_eq!(instance.to_string(), one);
        assert!(instance.same_app(&name));
        assert_ne!(instance, name);
    }

    #[test]
    fn what_is_not_a_name_is_refused_and_named() {
        for text in [
            "",
            "a/b",
            "a//c",
            "a/b/c/d",
            "a/b/c/d/e",
            "a/b/ ",
            "a/b/c/ee23cd86c165f5493bcdcd4cde967fbd",
            "a//c/ee23cd86-c165-f549-3bcd-cd4cde967fbd",
        ] {
            let error = text.parse::<Name>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn text_that_does_not_hash_to_the_components_is_refused() {
        let bob: Name = "acme/demo/bob".parse().unwrap();
        let text = ["acme", "demo", "alice"].map(String::from);
        assert_eq!(Name::from_parts(bob.components(), None, Some(text)), None);
    }

    fn any_part() -> impl Strategy<Value = String> {
        "[^/]{1,8}".prop_filter("not only white space", |part| !part.trim().is_empty())
    }

    fn any_id() -> impl Strategy<Value = NameId> {
        prop_oneof![Just(NameId::ANY), Just(NameId(0)), any::<u128>().prop_map(NameId)]
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_as_the_same_name(
            parts in [any_part(), any_part(), any_part()],
            id in any_id(),
        ) {
            let [org, namespace, app] = &parts;
            let name = Name::new(org, namespace, app).unwrap().with_id(id);
            prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
            prop_assert_eq!(name.id(), id);
            let text = name.text().unwrap().clone();
            prop_assert_eq!(&text, &parts.map(|part| part.trim().to_owned()));
            // And over the wire.
            let read = Name::from_parts(name.components(), name.wire_id(), Some(text));
            prop_assert_eq!(read, Some(name));
        }

        #[test]
        fn any_text_is_a_name_that_prints_or_an_error_that_says_it(
            text in prop_oneof![
                4 => "[ab \\-0-9]{0,3}(/[ab ]{0,3}){0,3}(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?",
                1 => ".*",
            ],
        ) {
            match text.parse::<Name>() {
                Ok(name) => {
                    prop_assert_eq!(name.to_string().parse(), Ok(name));
                    prop_assert!((3..=4).contains(&text.split('/').count()));
                }
                Err(error) => {
                    let given = format!("{text:?}");
                    prop_assert!(error.to_string().contains(&given));
                }
            }
        }
    }
}
