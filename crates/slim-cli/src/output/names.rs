//! Names as people want to read them: as short as is unambiguous.

use std::collections::BTreeSet;

use slim_client::Name;

use super::text::visible;

/// Hexadecimal digits of an id that tell two instances of one name apart.
const ID_DIGITS: usize = 8;

/// The names that were met. Bounded by the members that a session can have had;
/// names beyond [`Names::LIMIT`] are written in full instead of remembered.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: BTreeSet<Name>,
}

impl Names {
    /// How many names are remembered.
    const LIMIT: usize = 4096;

    /// Remembers a name, so that no other is written like it.
    pub(crate) fn learn(&mut self, name: &Name) {
        if self.known.len() < Self::LIMIT {
            self.known.insert(name.clone());
        }
    }

    /// `app`, or as much of `org/ns/app/id` as no other known name has.
    pub(crate) fn short(&self, name: &Name) -> String {
        let Some([_, namespace, app]) = name.text() else { return name.to_string() };
        if !self.known.contains(name) {
            return visible(&name.to_string());
        }
        let short = if self.lookalikes(name, |text| text[2] == *app) == 0 {
            app.clone()
        } else if self.lookalikes(name, |text| text[2] == *app && text[1] == *namespace) == 0 {
            format!("{namespace}/{app}")
        } else {
            name.readable()
        };
        let short = visible(&short);
        let id = name.id().to_string();
        let other_ids: Vec<String> = self
            .known
            .iter()
            .filter(|other| other.same_app(name) && other.id() != name.id())
            .filter(|other| !other.id().is_any())
            .map(|other| other.id().to_string())
            .collect();
        if other_ids.is_empty() || name.id().is_any() {
            short
        } else if other_ids.iter().any(|other| other[..ID_DIGITS] == id[..ID_DIGITS]) {
            format!("{short}/{id}")
        } else {
            format!("{short}/{}", &id[..ID_DIGITS])
        }
    }

    /// How many other readable names have such texts.
    fn lookalikes(&self, name: &Name, alike: impl Fn(&[String; 3]) -> bool) -> usize {
        let others = self.known.iter().filter(|other| !other.same_app(name));
        others.filter(|other| other.text().is_some_and(&alike)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID_1: &str = "ee23cd86-c165-f549-3bcd-cd4cde967fbd";
    const ID_2: &str = "bacf0ce6-9e1b-bdd5-3dd3-84b0cd014cfb";
    const LIKE_ID_1: &str = "ee23cd86-c165-f549-3bcd-cd4cde967fbe";

    /// How each of these names is written when all are known.
    fn check(expected: &[(&str, &str)]) {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let mut names = Names::default();
        for (full, _) in expected {
            names.learn(&name(full));
        }
        for (full, short) in expected {
            assert_eq!(names.short(&name(full)), *short, "{full}");
        }
    }

    #[test]
    fn the_last_part_is_enough_if_no_other_has_it() {
        check(&[("a/b/c", "c"), ("a/b/d", "d")]);
        check(&[(&format!("a/b/c/{ID_1}"), "c"), ("a/b/c", "c")]);
    }

    #[test]
    fn as_many_parts_as_needed_are_written() {
        check(&[("a/b/c", "b/c"), ("a/x/c", "x/c")]);
        check(&[("a/b/c", "a/b/c"), ("x/b/c", "x/b/c"), ("a/b/d", "d")]);
    }

    #[test]
    fn instances_of_a_name_are_told_apart() {
        check(&[
            (&format!("a/b/c/{ID_1}"), "c/ee23cd86"),
            (&format!("a/b/c/{ID_2}"), "c/bacf0ce6"),
        ]);
        check(&[
            (&format!("a/b/c/{ID_1}"), &format!("c/{ID_1}")),
            (&format!("a/b/c/{LIKE_ID_1}"), &format!("c/{LIKE_ID_1}")),
        ]);
    }

    #[test]
    fn a_name_never_met_is_written_in_full() {
        let name: Name = format!("a/b/c/{ID_1}").parse().unwrap();
        assert_eq!(Names::default().short(&name), name.to_string());
    }

    #[test]
    fn control_characters_are_not_written() {
        check(&[("a/b/c\u{1b}[2J", "c\\u{1b}[2J")]);
    }
}
