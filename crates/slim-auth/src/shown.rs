//! Texts of strangers, fit to be shown.

use std::fmt;

/// A text that somebody else chose, as an error or a log may show it: at most
/// [`Shown::MAX`] characters, and none that moves a terminal's cursor.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(Box<str>);

impl Shown {
    /// The most characters that are shown.
    pub const MAX: usize = 120;

    /// Cuts and escapes.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::up_to(Self::MAX, text)
    }

    /// The same with another limit, in characters.
    #[must_use]
    pub fn up_to(limit: usize, text: &str) -> Self {
        let mut shown = String::new();
        let mut characters = text.chars();
        for character in characters.by_ref().take(limit) {
            if is_invisible(character) {
                shown.extend(character.escape_unicode());
            } else {
                shown.push(character);
            }
        }
        if characters.next().is_some() {
            shown.push('…');
        }
        if shown.is_empty() {
            shown.push_str("\"\"");
        }
        Self(shown.into())
    }

    /// Several texts, joined with commas.
    pub(crate) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = String::new();
        for (index, text) in texts.into_iter().enumerate() {
            if index == 5 {
                list.push_str(", …");
                break;
            }
            let separator = if index == 0 { "" } else { ", " };
            list.push_str(separator);
            list.push_str(&Self::new(text).0);
        }
        if list.is_empty() {
            list.push_str("\"\"");
        }
        Self(list.into())
    }
}

/// Control characters, and those that turn the direction of writing.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// So many seconds, in words.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds @ ..7200 => write!(f, "{} minutes", seconds / 60),
            seconds @ ..172_800 => write!(f, "{} hours", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_escaped() {
        assert_eq!(Shown::new("org/ns/é").to_string(), "org/ns/é");
        assert_eq!(Shown::new("").to_string(), "\"\"");
        assert_eq!(Shown::new("a\u{1b}[2Jb\n").to_string(), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(Shown::new("\u{202e}x").to_string(), "\\u{202e}x");
        let long = Shown::new(&"é".repeat(1000)).to_string();
        assert_eq!(long.chars().count(), Shown::MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn lists_end() {
        assert_eq!(Shown::list(["a", "b"]).to_string(), "a, b");
        assert_eq!(Shown::list(["x"; 1000]).to_string(), "x, x, x, x, x, …");
        assert_eq!(Shown::list([]).to_string(), "\"\"");
    }

    #[test]
    fn spans_in_words() {
        for (seconds, words) in [
            (0, "0 s"),
            (119, "119 s"),
            (180, "3 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(Span(seconds).to_string(), words);
        }
    }
}
