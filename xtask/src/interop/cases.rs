//! What is played: each case is a function, and a list of casts to play it with.

mod calls;
mod clocks;
mod endings;
mod faults;
mod groups;
mod invites;
mod limits;

use crate::stage::Stage;
use crate::stage::cast::{Cast, Ours, Side, Theirs, calls, groups, with_and_without_mls};

/// Something that both implementations have to get right together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// In one sentence.
    pub(super) about: &'static str,
    /// It mostly waits, half a minute and more, so it is played beside the others.
    pub(super) is_slow: bool,
    pub(super) casts: fn() -> Vec<Cast>,
    pub(super) play: fn(&mut Stage<'_>) -> anyhow::Result<()>,
}

/// All of them, in the order of the table.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "group",
        about: "everybody speaks and hears everybody; then the moderator closes",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: groups::all_to_all,
    },
    Case {
        name: "one by one",
        about: "eight join one after another, and hear what is said from then on",
        is_slow: false,
        casts: || {
            let eight = [Ours, Theirs, Theirs, Ours, Ours, Theirs, Theirs, Ours];
            with_and_without_mls(groups(&Side::BOTH, &eight))
        },
        play: invites::one_by_one,
    },
    Case {
        name: "at once",
        about: "six are invited at the same time",
        is_slow: false,
        casts: || {
            let six = [Ours, Theirs, Theirs, Ours, Ours, Theirs];
            with_and_without_mls(groups(&Side::BOTH, &six))
        },
        play: invites::at_once,
    },
    Case {
        name: "again",
        about: "members are invited again, and nothing changes",
        is_slow: false,
        casts: || with_and_without_mls(groups(&[Ours], &[Ours, Theirs])),
        play: invites::again,
    },
    Case {
        name: "nobody",
        about: "a name that nobody has is invited together with others, who join",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: invites::nobody,
    },
    Case {
        name: "declined",
        about: "one of ours wants neither into a group nor a call of this moderator",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: invites::declined,
    },
    Case {
        name: "remove",
        about: "one of each kind is removed, and joins again as a new instance",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Ours, Theirs])),
        play: endings::remove,
    },
    Case {
        name: "leave",
        about: "one of each kind leaves",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Ours, Theirs])),
        play: endings::leave,
    },
    Case {
        name: "last leaves",
        about: "the only participant leaves; ours keeps the group, theirs ends it",
        is_slow: false,
        casts: || with_and_without_mls(calls(&Side::BOTH)),
        play: endings::last_leaves,
    },
    Case {
        name: "node file",
        about: "the same over a node from a configuration file, with a strict header MAC",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::node_from_a_file,
    },
    Case {
        name: "tls",
        about: "the same over links with TLS",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::over_tls,
    },
    Case {
        name: "mutual tls",
        about: "the same where the node demands certificates of its members",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::over_mutual_tls,
    },
    Case {
        name: "password",
        about: "the same where the node demands a password of its members",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::with_passwords,
    },
    Case {
        name: "bearer",
        about: "the same where the node demands tokens that its members sign",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::with_bearer_tokens,
    },
    Case {
        name: "policy",
        about: "the same where names belong to somebody, and others do not get them",
        is_slow: false,
        casts: || {
            let by_ours = |cast: &Cast| cast.node == Ours;
            let casts = with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs]));
            casts.into_iter().filter(by_ours).collect()
        },
        play: groups::under_a_policy,
    },
    Case {
        name: "unix socket",
        about: "the same over a socket in the file system",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::over_a_unix_socket,
    },
    Case {
        name: "full mesh",
        about: "the same at three nodes that are joined: ours, the cast's, ours",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Ours, Ours, Theirs, Theirs, Theirs]),
        play: groups::at_a_full_mesh,
    },
    Case {
        name: "relay",
        about: "the same at three nodes in a line, of which the one in the middle relays",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Ours, Ours, Theirs, Theirs, Theirs]),
        play: groups::at_a_line,
    },
    Case {
        name: "websocket",
        about: "over WebSockets, the node ends, and another one begins at the same place",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: faults::node_restarts_on_websockets,
    },
    Case {
        name: "websocket tls",
        about: "a group over WebSockets with TLS",
        is_slow: false,
        casts: || groups(&Side::BOTH, &[Ours, Theirs]),
        play: groups::over_websockets_with_tls,
    },
    Case {
        name: "call",
        about: "point-to-point: both speak, with all kinds of payloads; the caller ends it",
        is_slow: false,
        casts: || with_and_without_mls(calls(&Side::BOTH)),
        play: calls::both_speak,
    },
    Case {
        name: "echo",
        about: "point-to-point: everything comes back, the listener ends it",
        is_slow: false,
        casts: || with_and_without_mls(calls(&Side::BOTH)),
        play: calls::echo,
    },
    Case {
        name: "procedures",
        about: "remote procedure calls of the reference (slimrpc): unary and streams",
        is_slow: false,
        casts: || {
            let theirs = |node| Cast { node, moderator: Theirs, others: vec![Theirs], mls: false };
            Side::BOTH.map(theirs).to_vec()
        },
        play: calls::procedures,
    },
    Case {
        name: "anycast",
        about: "calls to a name with three instances stay with the one that answered",
        is_slow: false,
        casts: || {
            let three = |cast: Cast| {
                let listener = cast.moderator.other();
                Cast { others: vec![Ours, Theirs, listener], ..cast }
            };
            with_and_without_mls(calls(&Side::BOTH).into_iter().map(three))
        },
        play: calls::anycast,
    },
    Case {
        name: "payloads",
        about: "nothing to 1 MiB, text and not, with and without type and metadata",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: groups::payloads,
    },
    Case {
        name: "largest",
        about: "payloads just under and over what a message can be",
        is_slow: true,
        casts: || {
            let by_ours = |cast: &Cast| cast.moderator == Ours;
            let casts = with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs]));
            casts.into_iter().filter(by_ours).collect()
        },
        play: limits::largest,
    },
    Case {
        name: "direct",
        about: "everybody answers single members of a group, and nobody else hears it",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Theirs])),
        play: groups::direct,
    },
    Case {
        name: "best effort",
        about: "a session of the reference in which nothing is acknowledged",
        is_slow: false,
        casts: || {
            let by_theirs = |cast: &Cast| cast.moderator == Theirs;
            let casts = with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs]));
            casts.into_iter().filter(by_theirs).collect()
        },
        play: groups::best_effort,
    },
    Case {
        name: "burst",
        about: "four members say 500 lines each at once",
        is_slow: false,
        casts: || {
            let balanced = |cast: Cast| {
                let others = vec![cast.moderator.other(), Ours, Theirs];
                Cast { others, ..cast }
            };
            with_and_without_mls(groups(&Side::BOTH, &[]).into_iter().map(balanced))
        },
        play: groups::burst,
    },
    Case {
        name: "lossy burst",
        about: "the same over a network that loses one message in fifty",
        is_slow: true,
        casts: || {
            let balanced = |cast: Cast| {
                let others = vec![cast.moderator.other(), Ours, Theirs];
                Cast { others, ..cast }
            };
            with_and_without_mls(groups(&Side::BOTH, &[]).into_iter().map(balanced))
        },
        play: groups::lossy_burst,
    },
    Case {
        name: "churn",
        about: "members join, leave and are removed while everybody speaks",
        is_slow: false,
        casts: || {
            let six = [Ours, Theirs, Ours, Theirs, Theirs, Ours];
            with_and_without_mls(groups(&Side::BOTH, &six))
        },
        play: groups::churn,
    },
    Case {
        name: "stutter",
        about: "one of each kind stands still for seconds, and gets everything all the same",
        is_slow: true,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Theirs])),
        play: faults::stutter,
    },
    Case {
        name: "node restarts",
        about: "the node is stopped and started again in mid conversation",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: faults::node_restarts,
    },
    Case {
        name: "restart in speech",
        about: "our node ends and begins again while everybody speaks; nothing is lost",
        is_slow: false,
        casts: || {
            let casts = with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs]));
            casts.into_iter().filter(|cast| cast.node == Ours).collect()
        },
        play: faults::node_restarts_in_speech,
    },
    Case {
        name: "node crashes",
        about: "the node is killed and started again in mid conversation",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: faults::node_crashes,
    },
    Case {
        name: "started again",
        about: "one of each kind is killed, started again, and takes its old place",
        is_slow: true,
        casts: || {
            let group = [Ours, Theirs, Ours, Theirs];
            with_and_without_mls(groups(&Side::BOTH, &group))
                .into_iter()
                .filter(|cast| cast.moderator == Ours)
                .collect()
        },
        play: faults::started_again,
    },
    Case {
        name: "wrong secret",
        about: "who has another secret does not get in, and keeps nobody else out",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs])),
        play: faults::wrong_secret,
    },
    Case {
        name: "enforce",
        about: "the reference checks identities as strictly as it can",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Ours, Theirs])),
        play: groups::enforced,
    },
    Case {
        name: "tokens",
        about: "the same with JSON Web Tokens instead of a secret, signed with RSA, P-256, P-384 and Ed25519",
        is_slow: false,
        casts: || {
            let six = [Ours, Theirs, Ours, Theirs, Ours, Theirs];
            with_and_without_mls(groups(&Side::BOTH, &six))
        },
        play: groups::tokens,
    },
    Case {
        name: "spiffe",
        about: "the same with identities by the Workload API of a SPIFFE agent, whose key changes",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Ours, Theirs])),
        play: groups::spiffe,
    },
    Case {
        name: "away",
        about: "one of each kind goes away on purpose, and comes back",
        is_slow: false,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Ours])),
        play: faults::away,
    },
    Case {
        name: "wrong clock",
        about: "a clock that is 4 s ahead does not matter, one that is 20 s off does",
        is_slow: true,
        casts: || with_and_without_mls(groups(&[Ours], &[Ours, Theirs])),
        play: clocks::wrong,
    },
    Case {
        name: "hour",
        about: "a group outlives the tokens that its members joined with",
        is_slow: true,
        casts: || with_and_without_mls(groups(&[Ours], &[Ours, Theirs, Theirs, Ours])),
        play: clocks::hour,
    },
    Case {
        name: "hour of tokens",
        about: "the same with JSON Web Tokens that the members sign",
        is_slow: true,
        casts: || with_and_without_mls(groups(&[Ours], &[Ours, Theirs, Theirs, Ours])),
        play: clocks::hour_of_tokens,
    },
    Case {
        name: "hour of svids",
        about: "the same with tokens of a SPIFFE agent, among ours",
        is_slow: true,
        casts: || {
            let by_ours = |cast: &Cast| cast.moderator == Ours;
            let casts = with_and_without_mls(groups(&[Ours], &[Ours, Ours]));
            casts.into_iter().filter(by_ours).collect()
        },
        play: clocks::hour_of_svids,
    },
    Case {
        name: "pause",
        about: "one of each kind stands still for half a minute: offline, and online again",
        is_slow: true,
        casts: || with_and_without_mls(groups(&Side::BOTH, &[Ours, Theirs, Theirs])),
        play: faults::pause,
    },
    Case {
        name: "missed commit",
        about: "one of each kind loses its link while another joins, and gets new keys",
        is_slow: true,
        casts: || {
            // A node of the reference loses those of its own kind that see it end.
            let is_possible = |cast: &Cast| cast.node == Ours || cast.moderator == Ours;
            groups(&Side::BOTH, &[Ours, Theirs]).into_iter().filter(is_possible).collect()
        },
        play: faults::missed_commit,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/interop.md");
    const README: &str = include_str!("../../../README.md");

    #[test]
    fn the_documents_count_every_case() {
        let mut total = 0;
        for case in CASES {
            let casts = (case.casts)().len();
            let begin = format!("| {} |", case.name);
            let row = DOCUMENT.lines().find(|line| line.starts_with(&begin));
            let row = row.unwrap_or_else(|| panic!("{} is not in docs/interop.md", case.name));
            let told = row.split(" | ").nth(2).expect("a column of casts");
            let told = told.split(',').next().expect("a number");
            assert_eq!(told.parse(), Ok(casts), "{row}");
            total += casts;
        }
        assert!(DOCUMENT.contains(&format!("All {total} pass.")), "{total} in docs/interop.md");
        assert!(README.contains(&format!("each row, {total} in all")), "{total} in README.md");
    }
}
