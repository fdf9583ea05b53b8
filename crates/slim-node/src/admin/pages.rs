//! Links and routes as JSON, a page at a time.

use std::time::SystemTime;

use serde::Serialize;
use slim_link::Principal;
use slim_proto::{ConnectionType, Name, RouteName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::rates::{Rate, Rates};
use crate::RoutePlace;
use crate::links::Traffic;
use crate::subscriber::{Condition, Subscriber};
use crate::view::View;

/// Entries of a page, unless fewer are asked for. A page takes some 500 KB at most where
/// names are of usual length.
const MAX_LIMIT: usize = 1000;

/// Links that are shown of each route.
const SHOWN_LINKS: usize = 16;

/// What stands behind the question mark.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    limit: Option<usize>,
    after: u64,
    name: Option<Name>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = |what: &str| format!("{key}={value}: expected {what}");
            match key {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    let wanted = format!("a number from 1 to {MAX_LIMIT}");
                    parsed.limit = Some(limit.ok_or_else(|| number(&wanted))?);
                }
                "after" => {
                    let wanted = "the next of an earlier page";
                    parsed.after = value.parse().map_err(|_| number(wanted))?;
                }
                "name" => {
                    let name = decode(value).and_then(|name| name.parse().ok());
                    parsed.name = Some(name.ok_or_else(|| number("a name such as org/ns/app"))?);
                }
                _ => return Err(format!("{key}: unknown, there are limit, after and name")),
            }
        }
        Ok(parsed)
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(MAX_LIMIT)
    }
}

/// Percent-encoding undone.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [upper, lower, tail @ ..]) => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                (u8::try_from(digit(upper)? * 16 + digit(lower)?).ok()?, tail)
            }
            (b'%', _) => return None,
            (byte, tail) => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// What `/connections` answers.
#[derive(Debug, Serialize)]
pub(super) struct Connections {
    connections: Vec<Connection>,
    /// Links that are up.
    total: usize,
    /// Links behind this page.
    truncated: usize,
    /// Where to go on if there are such.
    next: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Connection {
    link: u64,
    peer: String,
    principals: Vec<String>,
    node_id: String,
    link_id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    version: String,
    has_mac: bool,
    since: String,
    names: Vec<String>,
    names_total: usize,
    received: Flow,
    delivered: Flow,
    queued_bytes: usize,
    state: &'static str,
}

/// One direction of a link.
#[derive(Debug, Serialize)]
struct Flow {
    messages: u64,
    bytes: u64,
    #[serde(flatten)]
    rate: Rate,
}

pub(super) fn connections(
    view: &View,
    rates: &Rates,
    query: &Query,
) -> Result<Connections, String> {
    if query.name.is_some() {
        return Err("name: only /routes has it".to_owned());
    }
    let (links, truncated) = view.links.page(query.after, query.limit());
    let next = links.last().map(|link| link.about().number).filter(|_| truncated > 0);
    Ok(Connections {
        connections: links.iter().map(|link| connection(link, rates.of(link))).collect(),
        total: view.links.count(),
        truncated,
        next,
    })
}

fn connection(link: &Subscriber, [sends, gets]: [Rate; 2]) -> Connection {
    let about = link.about();
    let (names, names_total) = link.names().read();
    let flow = |traffic: &Traffic, rate| Flow {
        messages: traffic.messages(),
        bytes: traffic.bytes(),
        rate,
    };
    Connection {
        link: about.number,
        peer: about.info.peer_addr.to_string(),
        principals: about.info.principals.iter().map(Principal::to_string).collect(),
        node_id: about.info.node_id.clone(),
        link_id: about.info.link_id.clone(),
        kind: match about.info.connection_type {
            ConnectionType::Edge => "edge",
            ConnectionType::Remote => "remote",
            ConnectionType::Peer => "peer",
        },
        version: about.info.slim_version.clone(),
        has_mac: about.info.has_mac,
        since: rfc3339(about.since),
        names: names.iter().map(Name::to_string).collect(),
        names_total,
        received: flow(link.received(), sends),
        delivered: flow(link.delivered(), gets),
        queued_bytes: link.outbound().queued_bytes(),
        state: match link.condition() {
            Condition::Good => "good",
            Condition::Behind => "behind",
            Condition::Shed => "shed",
            Condition::Closing => "closing",
        },
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).expect("a year has four digits")
}

/// What `/routes` answers.
#[derive(Debug, Serialize)]
pub(super) struct Routes {
    routes: Vec<Route>,
    /// Names that somebody has subscribed to, or instances of the one that was asked for.
    total: usize,
    /// Those of them that are not on this page, nor were on one before.
    truncated: usize,
    /// Where to go on if there are such.
    next: Option<u64>,
}

/// Order is the table's.
#[derive(Debug, Serialize)]
struct Route {
    /// Three parts; their hashes where nobody has said which they are.
    name: String,
    /// Which instance; none where any is meant.
    id: Option<String>,
    /// Numbers of links.
    links: Vec<u64>,
    links_total: usize,
}

pub(super) fn routes(view: &View, _: &Rates, query: &Query) -> Result<Routes, String> {
    let Some(name) = &query.name else {
        let (routes, next) = view.table.page(RoutePlace(query.after), query.limit(), route);
        let truncated = next.map_or(0, |next| view.table.names_from(next));
        return Ok(Routes {
            routes,
            total: view.table.names(),
            truncated,
            next: next.map(|n| n.0),
        });
    };
    let (routes, total) = view.table.instances(name.components(), query.limit(), route);
    let truncated = total - routes.len();
    Ok(Routes { routes, total, truncated, next: None })
}

fn route(name: &RouteName, links: &mut dyn Iterator<Item = &std::sync::Arc<Subscriber>>) -> Route {
    let mut readable = None;
    let mut shown = Vec::new();
    let mut links_total = 0;
    for link in links {
        if shown.len() < SHOWN_LINKS {
            readable = readable.or_else(|| link.names().of_route(name));
            shown.push(link.about().number);
        }
        links_total += 1;
    }
    let readable = readable.or_else(|| Name::from_parts(name.components, None, None));
    Route {
        name: readable.map(|name| name.readable()).unwrap_or_default(),
        id: (!name.id.is_any()).then(|| name.id.to_string()),
        links: shown,
        links_total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_what_is_wrong_with_it_is_said() {
        let parse = Query::parse;
        assert_eq!(parse(""), Ok(Query::default()));
        let query = parse("limit=5&after=77").unwrap();
        assert_eq!((query.limit(), query.after), (5, 77));
        let name = parse("name=org%2Fns/%c3%a4pp").unwrap().name.unwrap();
        assert_eq!(name, "org/ns/\u{e4}pp".parse().unwrap());
        for (query, expected) in [
            ("limit=0", "limit=0: expected a number from 1 to 1000"),
            ("limit=1001", "limit=1001: expected a number from 1 to 1000"),
            ("after=-1", "after=-1: expected the next of an earlier page"),
            ("name=app", "name=app: expected a name such as org/ns/app"),
            ("name=%f", "name=%f: expected a name such as org/ns/app"),
            ("name=%ff/a/b", "name=%ff/a/b: expected a name such as org/ns/app"),
            ("x", "x: unknown, there are limit, after and name"),
        ] {
            assert_eq!(parse(query).unwrap_err(), expected);
        }
    }
}
