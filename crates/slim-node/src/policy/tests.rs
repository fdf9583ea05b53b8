use proptest::prelude::*;

use super::*;

fn rule(name: &str, principals: &[&str], subscribe: &[&str], publish: &[&str]) -> Rule {
    let names = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
    Rule {
        name: name.to_owned(),
        principals: principals.iter().map(|text| text.parse().unwrap()).collect(),
        issuer: None,
        subscribe: names(subscribe),
        publish: names(publish),
    }
}

fn policy() -> Policy {
    let issued = Rule {
        issuer: Some("https://good".to_owned()),
        ..rule("issued", &["jwt:*"], &["acme/jobs/worker/own"], &["acme/jobs"])
    };
    Policy {
        rules: vec![
            rule("alice", &["basic:alice", "spiffe://d/alice"], &["acme/demo/alice"], &[]),
            rule("demo", &["basic:*", "spiffe://d/*"], &["acme/demo/team"], &["acme/demo"]),
            issued,
            rule("hosts", &["dns:*.d.example"], &["acme/*/host"], &["*"]),
            rule("one", &["basic:one"], &["a/b/c/00000000-0000-0000-0000-000000000007"], &[]),
            rule("all", &["anyone"], &["open"], &["open/house"]),
        ],
    }
}

fn principal(text: &str) -> Principal {
    match text.strip_prefix("good ") {
        Some(subject) => {
            let issuer = Some("https://good".to_owned());
            Principal::Jwt { subject: subject.to_owned(), issuer }
        }
        None => text.parse().unwrap(),
    }
}

/// Who may do what, by which rule.
#[test]
fn a_table() {
    use Action::{Publish, Subscribe};
    let own = NameId::of_subject("w");
    let policy = policy();
    for (who, action, name, expected) in [
        ("basic:alice", Subscribe, "acme/demo/alice", Some("alice")),
        (
            "basic:alice",
            Subscribe,
            "acme/demo/alice/00000000-0000-0000-0000-000000000001",
            Some("alice"),
        ),
        ("spiffe://d/alice", Subscribe, "acme/demo/alice", Some("alice")),
        ("basic:bob", Subscribe, "acme/demo/alice", None),
        ("basic:ALICE", Subscribe, "acme/demo/alice", None),
        ("dns:alice", Subscribe, "acme/demo/alice", None),
        ("jwt:alice", Subscribe, "acme/demo/alice", None),
        ("basic:bob", Subscribe, "acme/demo/team", Some("demo")),
        ("basic:bob", Publish, "acme/demo/alice", Some("demo")),
        ("basic:bob", Publish, "acme/demos/alice", None),
        ("basic:bob", Publish, "acme/other/demo", None),
        ("spiffe://d/x/y", Publish, "acme/demo/team", Some("demo")),
        ("spiffe://d2/x", Publish, "acme/demo/team", None),
        ("good w", Subscribe, &format!("acme/jobs/worker/{own}"), Some("issued")),
        ("good x", Subscribe, &format!("acme/jobs/worker/{own}"), None),
        ("good w", Subscribe, "acme/jobs/worker", None),
        ("good w", Publish, "acme/jobs/worker", Some("issued")),
        // Of no issuer, or of another.
        ("jwt:w", Publish, "acme/jobs/worker", None),
        ("dns:a.d.example", Subscribe, "acme/x/host", Some("hosts")),
        ("dns:a.d.example", Subscribe, "acme/x/guest", None),
        ("dns:A.D.example", Publish, "what/so/ever", Some("hosts")),
        ("dns:d.example", Publish, "what/so/ever", None),
        ("basic:one", Subscribe, "a/b/c/00000000-0000-0000-0000-000000000007", Some("one")),
        ("basic:one", Subscribe, "a/b/c/00000000-0000-0000-0000-000000000008", None),
        ("basic:one", Subscribe, "a/b/c", None),
        ("basic:x", Subscribe, "open/to/all", Some("all")),
        ("basic:x", Publish, "open/to/all", None),
        ("basic:x", Publish, "open/house/x", Some("all")),
    ] {
        let name = name.parse::<Name>().unwrap().route();
        let decision = policy.decide(&[principal(who)], action, &name);
        assert_eq!(decision.rule.as_deref(), expected, "{who} {action} {name:?}");
        assert_eq!(decision.allowed, expected.is_some());
    }
    let name = "open/to/all".parse::<Name>().unwrap().route();
    assert!(policy.decide(&[], Subscribe, &name).allowed, "nobody is somebody, too");
    assert!(
        !Policy::default().decide(&[], Subscribe, &name).allowed,
        "without rules all is denied"
    );
}

#[test]
fn a_link_may_what_one_of_its_principals_may() {
    let policy = policy();
    let name = "acme/demo/alice".parse::<Name>().unwrap().route();
    let both = [principal("dns:x"), principal("spiffe://d/alice")];
    assert!(policy.decide(&both, Action::Subscribe, &name).allowed);
    assert!(!policy.decide(&both[..1], Action::Subscribe, &name).allowed);
}

#[test]
fn a_decision_says_why() {
    let policy = policy();
    let name = "acme/demo/alice".parse::<Name>().unwrap().route();
    let said = |who: &str| policy.decide(&[principal(who)], Action::Subscribe, &name).to_string();
    assert_eq!(said("basic:alice"), "rule \"alice\" allows it");
    assert_eq!(said("jwt:x"), "rule \"all\" is for this principal, and not for the name");
    let two = "rules [\"demo\", \"all\"] are for this principal, and none of them for the name";
    assert_eq!(said("basic:bob"), two);
    let none = Policy::default().decide(&[], Action::Publish, &name).to_string();
    assert_eq!(none, "no rule is for this principal");
}

#[test]
fn patterns_that_cannot_be_kept_are_refused() {
    for (text, reason) in [
        ("", "a part is empty"),
        ("a//b", "a part is empty"),
        ("a/ /b", "a part is empty"),
        ("a/b/al*", "* stands for a whole part"),
        ("a/**", "* stands for a whole part"),
        ("a/b/c/d", "an id is a UUID, or own"),
        ("a/b/c/own/e", "a name has three parts"),
    ] {
        let error = text.parse::<NamePattern>().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{text:?} is no pattern of names: {reason}")),
            "{error}"
        );
    }
    for text in ["alice", "*", "basic:", "*:alice"] {
        let error = text.parse::<PrincipalPattern>().unwrap_err().to_string();
        assert!(error.contains("is no principal") && error.ends_with("or anyone"), "{error}");
    }
    let error = "basic:*a*".parse::<PrincipalPattern>().unwrap_err();
    assert_eq!(error, PrincipalPatternError::Stars("basic:*a*".to_owned()));
}

/// The readable parts of a name decide nothing: a name that routes like another one is
/// the other one, whatever its text, and a part with the beginning of another is another.
#[test]
fn it_is_the_route_that_counts() {
    let pattern: NamePattern = "acme/demo/alice".parse().unwrap();
    let name: Name = "acme/demo/alice".parse().unwrap();
    assert!(pattern.matches(&name.without_text().route(), &[]));
    for other in ["acme/demo/alice2", "acme/demo/alic", "acme/demo/Alice", "acmf/demo/alice"] {
        assert!(!pattern.matches(&other.parse::<Name>().unwrap().route(), &[]), "{other}");
    }
}

fn part() -> impl Strategy<Value = String> {
    "[a-c]{1,2}"
}

fn any_principal() -> impl Strategy<Value = Principal> {
    prop_oneof![
        "[ab]{1,3}".prop_map(Principal::Basic),
        "[ab]{1,3}".prop_map(Principal::Dns),
        "[ab]{1,2}".prop_map(|path| Principal::Spiffe(format!("spiffe://d/{path}"))),
        ("[ab]{1,3}", proptest::option::of("[ij]"))
            .prop_map(|(subject, issuer)| Principal::Jwt { subject, issuer }),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let principal = prop_oneof![
        "(basic|jwt|dns):[ab]{0,2}[ab*][ab]{0,2}",
        "spiffe://d/[ab]{0,1}[ab*]",
        Just("anyone".to_owned()),
    ];
    let name = "([a-c]{1,2}|[*])(/([a-c]{1,2}|[*])){0,2}";
    let names = || proptest::collection::vec(name, 0..3);
    (proptest::collection::vec(principal, 1..3), names(), names(), proptest::option::of("[ij]"))
        .prop_map(|(principals, subscribe, publish, issuer)| {
            let texts = |list: &[String]| list.iter().map(|text| text.parse().unwrap()).collect();
            Rule {
                name: "rule".to_owned(),
                principals: principals.iter().map(|text| text.parse().unwrap()).collect(),
                issuer,
                subscribe: texts(&subscribe),
                publish: texts(&publish),
            }
        })
}

proptest! {
    /// Each rule only adds: with more rules, or more principals, nobody may less.
    #[test]
    fn rules_and_principals_only_add(
        rules in proptest::collection::vec(any_rule(), 0..4),
        principals in proptest::collection::vec(any_principal(), 0..3),
        parts in [part(), part(), part()],
        publish in any::<bool>(),
    ) {
        let action = if publish { Action::Publish } else { Action::Subscribe };
        let [a, b, c] = &parts;
        let name = Name::new(a, b, c).unwrap().route();
        let all = Policy { rules };
        let decision = all.decide(&principals, action, &name);
        let some = (0..all.rules.len()).any(|index| {
            let alone = Policy { rules: vec![all.rules[index].clone()] };
            alone.decide(&principals, action, &name).allowed
        });
        prop_assert_eq!(decision.allowed, some);
        let one = principals.iter().any(|principal| {
            all.decide(std::slice::from_ref(principal), action, &name).allowed
        }) || all.decide(&[], action, &name).allowed;
        prop_assert_eq!(decision.allowed, one);
        prop_assert_eq!(decision.allowed, decision.rule.is_some());
    }

    /// As one would say it with texts: each part is the same or `*`, and what is not there
    /// is `*`.
    #[test]
    fn a_pattern_is_a_prefix(
        pattern in "([a-c]{1,2}|[*])(/([a-c]{1,2}|[*])){0,2}",
        parts in [part(), part(), part()],
    ) {
        let [a, b, c] = &parts;
        let name = Name::new(a, b, c).unwrap();
        let mut wanted = pattern.split('/').zip(&parts);
        let expected = wanted.all(|(wanted, part)| wanted == "*" || wanted == part);
        let pattern: NamePattern = pattern.parse().unwrap();
        prop_assert_eq!(pattern.matches(&name.route(), &[]), expected);
        prop_assert_eq!(pattern.matches(&name.with_id(NameId(7)).route(), &[]), expected);
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error_that_says_it(text in ".{0,20}") {
        if let Err(error) = text.parse::<NamePattern>() {
            let given = format!("{text:?}");
            prop_assert!(error.to_string().contains(&given));
        }
        if let Ok(PrincipalPattern::Like { principal, star: Some(star) }) = text.parse() {
            prop_assert_eq!(&principal.name()[star..=star], "*");
        }
    }
}
