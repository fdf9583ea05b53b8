//! The file of a policy: YAML with a list of rules.
//!
//! ```yaml
//! rules:
//!   - name: alice
//!     principals: [ "basic:alice" ]
//!     subscribe: [ acme/demo/alice, acme/demo/team ]
//!     publish: [ acme/demo ]
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use slim_node::{NamePattern, Policy, PrincipalPattern, Rule};

use super::error::ConfigError;
use super::setting::{Setting as _, mapping};
use super::value::{AtLeastOne, Texts};

mapping! {
    /// The file of a policy: what no rule allows is denied.
    pub(super) struct PolicyKeys {
        /// What is allowed; without one, nobody may do anything.
        rules: AtLeastOne<RuleKeys>,
    }
}

mapping! {
    /// What some may do.
    pub(super) struct RuleKeys {
        /// What logs and answers call it. Default `rule` and its number.
        name: Option<String>,
        /// For whom it is: `basic:USER`, `jwt:SUBJECT`, `spiffe://DOMAIN/PATH`,
        /// `dns:NAME`, or `anyone`. One `*` stands for one character or more.
        principals: Texts<PrincipalPattern>,
        /// Only tokens of this issuer count. Default every issuer that the node believes.
        issuer: Option<String>,
        /// Names that they may have: subscribe to, and send in the name of.
        subscribe: Texts<NamePattern>,
        /// Names that they may send to.
        publish: Texts<NamePattern>,
    }
    demands {
        ["principals"]: "principals are required: for whom the rule is",
        ["subscribe", "publish"]: "it allows nothing: give subscribe or publish",
    }
}

/// Where each key of each rule stands.
#[derive(Deserialize)]
struct Lines {
    rules: Vec<BTreeMap<String, Spanned<Value>>>,
}

/// Reads the text of a file.
///
/// # Errors
/// The first thing that is wrong, with the line and the path of its key.
pub(crate) fn parse(text: &str) -> Result<Policy, String> {
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    read(value).map_err(|error| match line(text, error.path()) {
        Some(line) => format!("line {line}: {error}"),
        None => error.to_string(),
    })
}

/// The line of what has this path: of a key of a rule, or else of the rule.
fn line(text: &str, path: &str) -> Option<u64> {
    let lines: Lines = serde_saphyr::from_str(text).ok()?;
    let (index, key) = path.strip_prefix("rules[")?.split_once(']')?;
    let rule = lines.rules.get(index.parse::<usize>().ok()?)?;
    let key = key.trim_start_matches('.').split(['.', '[']).next()?;
    match rule.get(key) {
        Some(value) => Some(value.referenced.line()),
        None => rule.values().map(|value| value.referenced.line()).min(),
    }
}

fn read(value: Value) -> Result<Policy, ConfigError> {
    // Nothing of a policy is without effect.
    let file = PolicyKeys::read(value, "", &mut Vec::new())?;
    let rules = file.rules.0.into_iter().enumerate();
    let rules = rules.map(|(index, rule)| rule.rule(index)).collect::<Result<Vec<_>, _>>()?;
    for (index, rule) in rules.iter().enumerate() {
        if rules[..index].iter().any(|other| other.name == rule.name) {
            let reason = format!("there is another rule {:?}", rule.name);
            return Err(ConfigError::new(format!("rules[{index}].name"), reason));
        }
    }
    Ok(Policy { rules })
}

impl RuleKeys {
    fn rule(self, index: usize) -> Result<Rule, ConfigError> {
        let rule = Rule {
            name: self.name.unwrap_or_else(|| format!("rule {}", index + 1)),
            principals: self.principals.0,
            issuer: self.issuer,
            subscribe: self.subscribe.0,
            publish: self.publish.0,
        };
        if let Some(at) = rule.publish.iter().position(NamePattern::is_own) {
            let reason = "own is for names that one has: whom one sends to has another id";
            return Err(self.place.error_at(&format!("publish[{at}]"), reason));
        }
        if rule.principals.is_empty() {
            return Err(self.place.error_at("principals", "required: for whom the rule is"));
        }
        if rule.subscribe.is_empty() && rule.publish.is_empty() {
            return Err(self.place.error("it allows nothing: give subscribe or publish"));
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::tests::{POLICY, agree};

    #[test]
    fn rules_are_read() {
        let policy = parse(
            "rules:\n- name: alice\n  principals: basic:alice\n  subscribe: [acme/demo/alice, \
             acme/jobs/worker/own]\n  publish: acme/demo\n- principals: [jwt:*, anyone]\n  \
             issuer: https://i\n  publish:\n  - '*'\n",
        )
        .unwrap();
        let [alice, second] = &policy.rules[..] else { panic!("{policy:?}") };
        assert_eq!(alice.name, "alice");
        assert_eq!(alice.principals, ["basic:alice".parse().unwrap()]);
        assert_eq!(
            alice.subscribe,
            ["acme/demo/alice".parse().unwrap(), "acme/jobs/worker/own".parse().unwrap()]
        );
        assert_eq!(alice.publish, ["acme/demo".parse().unwrap()]);
        assert_eq!((&*second.name, second.issuer.as_deref()), ("rule 2", Some("https://i")));
        assert_eq!(second.publish, ["*".parse().unwrap()]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let rule = "rules:\n- name: a\n  principals: basic:a\n  publish: a\n";
        for (text, expected) in [
            ("", "rules: required"),
            ("rules: []", "rules: required"),
            ("rule: []", "rule: unknown key, did you mean rules?"),
            ("rules: 7", "rules: expected a list"),
            ("- a\n- b", "expected a mapping"),
            ("rules:\n- principals: basic:a", "line 2: rules[0]: it allows nothing"),
            ("rules:\n- publish: a", "line 2: rules[0]: principals are required"),
            (
                "rules:\n- principals: basic:a\n  subscrbe: a\n",
                "line 3: rules[0].subscrbe: unknown key, did you mean subscribe?",
            ),
            (
                &format!("{rule}\n- principals: alice\n  publish: a\n"),
                "line 6: rules[1].principals[0]: \"alice\" is no principal",
            ),
            (
                &format!("{rule}- principals: basic:a\n  subscribe: [a, 'b/c*']\n"),
                "line 6: rules[1].subscribe[1]: \"b/c*\" is no pattern of names: * stands for",
            ),
            (
                &format!("{rule}- principals: basic:b\n  publish: a/b/c/own\n"),
                "line 6: rules[1].publish[0]: own is for names that one has",
            ),
            (
                &format!("{rule}- name: a\n  principals: basic:b\n  publish: a\n"),
                "line 5: rules[1].name: there is another rule \"a\"",
            ),
            ("rules:\n- principals: [basic:a\n", "line"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            if let Ok(value) = serde_saphyr::from_str::<Value>(text) {
                agree(&POLICY, &value, read(value.clone()).err().as_ref());
            }
        }
    }
}
