//! Two lists of texts in words: what was said and what was heard.

/// How many are named before "and N more".
const NAMED: usize = 8;

/// What `heard` has too little, too much or in the wrong place.
pub(crate) fn difference(said: &[&str], heard: &[&str]) -> Option<String> {
    if said == heard {
        return None;
    }
    let count = |list: &[&str], text: &str| list.iter().filter(|one| **one == text).count();
    let missing: Vec<&str> = said.iter().filter(|text| count(heard, text) == 0).copied().collect();
    let unknown: Vec<&str> = heard.iter().filter(|text| count(said, text) == 0).copied().collect();
    let twice: Vec<&str> =
        said.iter().filter(|text| count(heard, text) > count(said, text)).copied().collect();
    let mut found = Vec::new();
    for (what, texts) in [("missing", missing), ("never said", unknown), ("repeated", twice)] {
        if !texts.is_empty() {
            found.push(format!("{what}: {}", some_of(&texts)));
        }
    }
    if found.is_empty() {
        found.push(format!("order changed: {}", some_of(heard)));
    }
    Some(found.join("; "))
}

/// The first few of a list that may be long.
pub(crate) fn some_of(texts: &[impl AsRef<str>]) -> String {
    let mut shown: Vec<String> =
        texts.iter().take(NAMED).map(|text| text.as_ref().to_owned()).collect();
    if texts.len() > NAMED {
        shown.push(format!("and {} more", texts.len() - NAMED));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(heard: &[&str], expected: Option<&str>) {
        assert_eq!(difference(&["a", "b", "c"], heard).as_deref(), expected);
    }

    #[test]
    fn each_kind_of_difference_has_its_words() {
        check(&["a", "b", "c"], None);
        check(&["a", "c"], Some("missing: b"));
        check(&["a", "b", "c", "d"], Some("never said: d"));
        check(&["a", "b", "b", "c"], Some("repeated: b"));
        check(&["a", "c", "b"], Some("order changed: a, c, b"));
        check(&["d", "a", "a"], Some("missing: b, c; never said: d; repeated: a"));
    }

    #[test]
    fn of_many_the_first_are_named() {
        let texts: Vec<String> = (1..=10).map(|number| number.to_string()).collect();
        assert_eq!(some_of(&texts), "1, 2, 3, 4, 5, 6, 7, 8, and 2 more");
    }
}
