//! Every key of the node's file and of a policy, in Markdown, as docs/configuration.md
//! has them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::keys::FileKeys;
use super::policy::PolicyKeys;
use super::setting::{Key, Mapping as _, MappingShape, Shape, join, listed, prose};

/// The keys of both files.
pub(crate) fn markdown() -> String {
    let mut manual = Manual::default();
    manual.file("The file", &FileKeys::mapping());
    manual.file("The policy", &PolicyKeys::mapping());
    format!("{}\n", manual.text.trim_end())
}

#[derive(Default)]
struct Manual {
    text: String,
    /// Headings of mappings that have been described.
    seen: BTreeMap<&'static str, String>,
}

/// A mapping that is still to be described.
struct Section {
    heading: String,
    path: String,
    shape: MappingShape,
    tag: Option<&'static str>,
}

impl Manual {
    fn file(&mut self, heading: &str, shape: &MappingShape) {
        self.say(format_args!("## {heading}\n"));
        self.mapping("", shape, None);
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a text takes all");
    }

    /// A mapping, and those in it.
    fn mapping(&mut self, path: &str, shape: &MappingShape, tag: Option<&str>) {
        self.say(format_args!("{}\n", sentence(&prose(shape.about))));
        let mut sections = Vec::new();
        let mut others = [("Accepted without effect", Vec::new()), ("Refused", Vec::new())];
        let mut rows: Vec<_> =
            tag.iter().map(|tag| format!("| `type` | `{tag}` | required | |")).collect();
        for key in &shape.keys {
            let (name, about) = (key.name, prose(key.about));
            match (key.shape)() {
                Shape::Ignored => others[0].1.push((name, about)),
                Shape::Refused => others[1].1.push((name, about)),
                shape => {
                    let value = self.value(&join(path, name), shape, &mut sections);
                    let default = default(key);
                    rows.push(format!("| `{name}` | {value} | {default} | {about} |"));
                }
            }
        }
        if !rows.is_empty() {
            let rows = rows.join("\n");
            self.say(format_args!("| key | value | default | |\n|---|---|---|---|\n{rows}\n"));
        }
        for (keys, _) in shape.demands {
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            self.say(format_args!("Required: {}.\n", alternatives(&keys)));
        }
        for (what, keys) in others.iter().filter(|(_, keys)| !keys.is_empty()) {
            self.say(format_args!("{what}:\n"));
            for (name, about) in keys {
                self.say(format_args!("- `{name}`: {}", sentence(about)));
            }
            self.say(format_args!(""));
        }
        for Section { heading, path, shape, tag } in sections {
            self.say(format_args!("### {heading}\n"));
            self.mapping(&path, &shape, tag);
        }
    }

    /// What stands behind a key; the mappings in it are left for later.
    fn value(&mut self, path: &str, shape: Shape, sections: &mut Vec<Section>) -> String {
        match shape {
            Shape::Value { words, .. } => words,
            Shape::Mapping(shape) => {
                format!("[mapping](#{})", self.later(path, shape, None, sections))
            }
            Shape::Named { name, shape, .. } => self.value(&join(path, name), *shape, sections),
            Shape::List(_, item) => {
                format!("list: {}", self.value(&format!("{path}[]"), *item, sections))
            }
            Shape::Choice { variants, refused } => {
                let link = |(tag, shape)| {
                    format!("[`{tag}`](#{})", self.later(path, shape, Some(tag), sections))
                };
                let links: Vec<_> = variants.into_iter().map(link).collect();
                let refuse = |(tag, why): &(_, _)| format!("; `{tag}` is refused: {why}");
                let refused: String = refused.iter().map(refuse).collect();
                format!("mapping with the `type` {}{refused}", alternatives(&links))
            }
            Shape::Ignored | Shape::Refused => String::new(),
        }
    }

    /// Leaves a mapping for later, unless it has been described, and tells where it is.
    fn later(
        &mut self,
        path: &str,
        shape: MappingShape,
        tag: Option<&'static str>,
        sections: &mut Vec<Section>,
    ) -> String {
        let tagged = tag.map(|tag| format!(", `type: {tag}`")).unwrap_or_default();
        let heading = format!("`{path}`{tagged}");
        if let Some(seen) = self.seen.get(shape.name) {
            return anchor(seen);
        }
        self.seen.insert(shape.name, heading.clone());
        let anchor = anchor(&heading);
        sections.push(Section { heading, path: path.to_owned(), shape, tag });
        anchor
    }
}

fn default(key: &Key) -> String {
    match (key.default)() {
        _ if (key.is_required)() => "required".to_owned(),
        None => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    }
}

fn alternatives(words: &[String]) -> String {
    listed(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn sentence(text: &str) -> String {
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{text}{end}")
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
