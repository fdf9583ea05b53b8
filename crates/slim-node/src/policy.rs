//! Whose names are whose: which principals may subscribe to which names, and publish to
//! which. Pure.
//!
//! A policy is a list of rules that allow; what no rule allows is denied. A link may do
//! what any of its principals may.
//!
//! Names are compared by what nodes route by: the hashes of their parts, and the id. So a
//! pattern has whole parts or `*`, and nothing in between: whoever could choose the end of
//! a part could choose one with the hash of somebody else's, for the hash is not made to
//! withstand that. The readable parts of a message decide nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use slim_link::{Principal, PrincipalError};
use slim_proto::{Name, NameId, RouteName};

#[cfg(test)]
mod tests;

/// What somebody wants to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// To have it: to get what is sent to it, and to send in its name.
    Subscribe,
    /// To send to it.
    Publish,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subscribe => "subscribe to",
            Self::Publish => "publish to",
        })
    }
}

/// Lets some principals have some names, and send to some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called in logs and answers.
    pub name: String,
    /// For whom it is: one of them will do.
    pub principals: Vec<PrincipalPattern>,
    /// Who must have issued the tokens of those that are known by one. Default anybody
    /// whom the node believes.
    pub issuer: Option<String>,
    /// Names that they may have.
    pub subscribe: Vec<NamePattern>,
    /// Names that they may send to.
    pub publish: Vec<NamePattern>,
}

impl Rule {
    fn is_for(&self, principals: &[Principal]) -> bool {
        let issued = |principal: &&Principal| match (&self.issuer, principal) {
            (Some(wanted), Principal::Jwt { issuer, .. }) => issuer.as_ref() == Some(wanted),
            _ => true,
        };
        self.principals.iter().any(|pattern| {
            *pattern == PrincipalPattern::Anyone
                || principals.iter().filter(issued).any(|principal| pattern.matches(principal))
        })
    }

    fn names(&self, action: Action) -> &[NamePattern] {
        match action {
            Action::Subscribe => &self.subscribe,
            Action::Publish => &self.publish,
        }
    }
}

/// All rules. Without any, nobody may do anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// In the order in which they are asked; the first that allows is the one that is told.
    pub rules: Vec<Rule>,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule that allows it.
    pub rule: Option<String>,
    /// Where none does, the rules that are for these principals at all.
    pub others: Vec<String>,
}

impl Policy {
    /// Whether somebody with these principals may do this with this name.
    pub fn decide(&self, principals: &[Principal], action: Action, name: &RouteName) -> Decision {
        let grants = Grants::new(self, principals);
        let rule = |index: usize| self.rules[index].name.clone();
        match grants.allows(self, action, name) {
            Some(index) => Decision { allowed: true, rule: Some(rule(index)), others: Vec::new() },
            None => {
                let others = grants.rules.iter().map(|index| rule(*index)).collect();
                Decision { allowed: false, rule: None, others }
            }
        }
    }
}

/// In words, of somebody who is named elsewhere.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rule, &self.others[..]) {
            (Some(rule), _) => write!(f, "rule {rule:?} allows it"),
            (None, []) => f.write_str("no rule is for this principal"),
            (None, [only]) => {
                write!(f, "rule {only:?} is for this principal, and not for the name")
            }
            (None, others) => {
                write!(f, "rules {others:?} are for this principal, and none of them for the name")
            }
        }
    }
}

/// What a policy has for the principals of one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    /// Positions of the rules that are for them.
    rules: Vec<usize>,
    /// Ids that follow from who they are.
    own: Vec<NameId>,
}

impl Grants {
    pub(crate) fn new(policy: &Policy, principals: &[Principal]) -> Self {
        let rules = policy.rules.iter().enumerate();
        let rules = rules.filter(|(_, rule)| rule.is_for(principals)).map(|(index, _)| index);
        let own = principals.iter().map(|principal| NameId::of_subject(principal.name()));
        Self { rules: rules.collect(), own: own.collect() }
    }

    /// The rule that allows it; `policy` is the one that these were made of.
    pub(crate) fn allows(
        &self,
        policy: &Policy,
        action: Action,
        name: &RouteName,
    ) -> Option<usize> {
        let allows = |index: &usize| {
            policy.rules[*index]
                .names(action)
                .iter()
                .any(|pattern| pattern.matches(name, &self.own))
        };
        self.rules.iter().copied().find(allows)
    }
}

/// Names that begin alike: one to three parts, each a text or `*` for any, and behind three
/// of them optionally an id, or `own` for the one that follows from who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    /// Hashes; none is any part.
    parts: [Option<u64>; 3],
    id: IdPattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdPattern {
    Any,
    Own,
    Exact(NameId),
}

impl NamePattern {
    /// Whether a name is one of these, for somebody with these ids.
    fn matches(&self, name: &RouteName, own: &[NameId]) -> bool {
        let mut parts = self.parts.iter().zip(name.components);
        parts.all(|(wanted, part)| wanted.is_none_or(|wanted| wanted == part))
            && match self.id {
                IdPattern::Any => true,
                IdPattern::Own => own.contains(&name.id),
                IdPattern::Exact(id) => id == name.id,
            }
    }

    /// Whether it depends on who asks.
    pub fn is_own(&self) -> bool {
        self.id == IdPattern::Own
    }
}

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, NamePatternError> {
        let wrong = |reason| NamePatternError { text: text.to_owned(), reason };
        let given: Vec<&str> = text.split('/').collect();
        if given.len() > 4 {
            return Err(wrong("a name has three parts, and an id"));
        }
        let mut parts = [None; 3];
        for (part, given) in parts.iter_mut().zip(&given) {
            *part = match *given {
                "*" => None,
                "" => return Err(wrong("a part is empty")),
                given if given.contains('*') => {
                    return Err(wrong(
                        "* stands for a whole part: nodes know parts by their hashes",
                    ));
                }
                given => {
                    // Spaces around a part do not count in names either.
                    let name = Name::new("-", "-", given).map_err(|_| wrong("a part is empty"))?;
                    Some(name.components()[2])
                }
            };
        }
        let id = match given.get(3).copied() {
            None | Some("*") => IdPattern::Any,
            Some("own") => IdPattern::Own,
            Some(id) => match format!("-/-/-/{id}").parse::<Name>() {
                Ok(name) => IdPattern::Exact(name.id()),
                Err(_) => return Err(wrong("an id is a UUID, or own")),
            },
        };
        Ok(Self { text: text.to_owned(), parts, id })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is no pattern of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no pattern of names: {reason}; expected ORG, ORG/NS, ORG/NS/APP or ORG/NS/APP/ID"
)]
pub struct NamePatternError {
    text: String,
    reason: &'static str,
}

/// Principals that look alike.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrincipalPattern {
    /// Everybody, also who is nobody that the node knows.
    Anyone,
    /// Those of one kind whose names begin and end like this; where there is no `*`, the
    /// one of this name.
    Like {
        /// With the place of the `*` in its name, in bytes, if there is one.
        principal: Principal,
        /// Where its name has the `*`.
        star: Option<usize>,
    },
}

impl PrincipalPattern {
    fn matches(&self, found: &Principal) -> bool {
        use std::mem::discriminant;
        match self {
            Self::Anyone => true,
            Self::Like { principal, .. } if discriminant(principal) != discriminant(found) => false,
            Self::Like { principal, star: None } => principal.name() == found.name(),
            Self::Like { principal, star: Some(star) } => {
                let (head, tail) = principal.name().split_at(*star);
                let (found, tail) = (found.name(), &tail[1..]);
                // The star is for one character at least.
                found.len() > head.len() + tail.len()
                    && found.starts_with(head)
                    && found.ends_with(tail)
            }
        }
    }
}

impl FromStr for PrincipalPattern {
    type Err = PrincipalPatternError;

    fn from_str(text: &str) -> Result<Self, PrincipalPatternError> {
        if text == "anyone" {
            return Ok(Self::Anyone);
        }
        let principal: Principal = text.parse()?;
        let name = principal.name();
        let star = name.find('*');
        if star.is_some_and(|star| name[star + 1..].contains('*')) {
            return Err(PrincipalPatternError::Stars(text.to_owned()));
        }
        Ok(Self::Like { star, principal })
    }
}

/// The text is no pattern of principals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalPatternError {
    /// It is none of the kinds that there are.
    #[error("{0}, or anyone")]
    Principal(#[from] PrincipalError),
    /// What each of them stands for would be a riddle.
    #[error("{0:?} has more than one *")]
    Stars(String),
}

/// The policy of a running node, to be replaced.
#[derive(Clone, Debug)]
pub struct PolicyHandle(pub(crate) tokio::sync::watch::Sender<Arc<Policy>>);

impl PolicyHandle {
    /// Replaces the policy, for all links at once. What a link has subscribed to and may
    /// not have any more is withdrawn. Tells whether it is another one.
    pub fn set(&self, policy: Policy) -> bool {
        self.0.send_if_modified(|current| {
            let is_new = **current != policy;
            if is_new {
                *current = Arc::new(policy);
            }
            is_new
        })
    }
}
