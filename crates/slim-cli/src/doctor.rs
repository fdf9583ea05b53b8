//! `slim doctor FROM TO`: why one name cannot reach another, step by step.
//!
//! It speaks as an instance of FROM for as long as it takes: it opens a link, subscribes
//! to the name, and asks TO whether it is there, as an invitation begins. TO's
//! application notices nothing but that. Where the node can be looked at, it is asked
//! what it knows, too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde::Serialize;
use slim_auth::VerifyError;
use slim_client::{
    Identity, Link, LinkReceiver, LinkSender, NameId, SessionId, SessionType, Verifier,
    sign_command,
};
use slim_proto::{Body, Command, Header, Message, Name, Publish, Subscription, UNICAST, canonical};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::admin::{self, Admin, AskError, Metrics, Routes};
use crate::failure::Failure;
use crate::output::text::visible;
use crate::output::{Event, Output};

/// TO is asked again after this time: the question may get lost like anything else.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// A clock that is wrong by more is worth a word: tokens are refused a little later.
const CLOCK_TOLERANCE_SECS: i64 = 20;

/// How much alike two names are, of 1, if one may be meant by the other.
const LIKENESS: f64 = 0.85;

/// Characters of a peer's words that are shown.
const MAX_WORDS: usize = 400;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Who wants to reach somebody, without an id.
    pub(crate) from: Name,
    /// Whom, with or without an id.
    pub(crate) to: Name,
    /// The node as it was given.
    pub(crate) node: String,
    /// Where it can be looked at.
    pub(crate) admin: Option<Admin>,
    /// How long TO may take to answer.
    pub(crate) timeout: Duration,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    /// What: stable, for programs.
    pub(crate) step: &'static str,
    pub(crate) outcome: Outcome,
    /// In words.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is as it should be.
    Ok,
    /// It may be the reason, or could not be looked at.
    Unclear,
    /// It is the reason, or one of them.
    Failed,
}

/// Who we are, and whom we believe.
pub(crate) type Credentials = (Arc<dyn Identity>, Arc<dyn Verifier>);

/// Looks at one thing after the other, and tells what it sees.
///
/// # Errors
/// The first step that fails for certain.
pub(crate) async fn run(
    settings: &Settings,
    (identity, verifier): Credentials,
    link: Link,
    output: &mut Output,
) -> Result<(), Failure> {
    let info = link.info();
    let mut visit = Visit { settings, output };
    visit.ok(
        "node",
        format!(
            "{} is a node: {}, protocol {}, {}",
            settings.node,
            visible(&info.node_id),
            visible(&info.slim_version),
            if info.has_mac { "headers are protected" } else { "headers are not protected" },
        ),
    );
    let name = settings.from.with_id(NameId::of_subject(identity.subject()));
    let token = visit.own_token(&*identity, &*verifier)?;
    let (sender, mut receiver) = link.split();
    visit.subscribe(&name, &token, &sender, &mut receiver).await?;
    let subscribed = match &settings.admin {
        Some(admin) => visit.look(admin, &name).await,
        None => None,
    };
    let question = question(&name, &settings.to, token, &*identity)?;
    let answered = visit.ask(question, &sender, &mut receiver, &*verifier, subscribed).await;
    sender.close();
    answered
}

/// The link did not come about.
pub(crate) fn tell_unreachable(failure: &Failure, output: &mut Output) {
    let advice = match failure {
        Failure::NodeUnreachable { .. } => {
            "start slim-node there, look whether it listens on this address (its first line \
             says where) and whether a firewall is between"
        }
        Failure::NodeInsecure { .. } => {
            "use http:// where the node speaks no TLS and https:// where it does; give --tls-ca \
             with the authority of the node's certificate, and --tls-server-name if it is for \
             another name"
        }
        Failure::RefusedByNode { .. } => {
            "give what the node wants to know its clients by: --tls-cert and --tls-key, or the \
             node's own rules; its log says why it refuses"
        }
        _ => return,
    };
    output.emit(&Event::Step(Step {
        step: "node",
        outcome: Outcome::Failed,
        message: failure.to_string(),
        advice: Some(advice.to_owned()),
    }));
}

struct Visit<'a> {
    settings: &'a Settings,
    output: &'a mut Output,
}

impl Visit<'_> {
    fn tell(&mut self, step: &'static str, outcome: Outcome, message: String, advice: &str) {
        let advice = (!advice.is_empty()).then(|| advice.to_owned());
        self.output.emit(&Event::Step(Step { step, outcome, message, advice }));
    }

    fn ok(&mut self, step: &'static str, message: String) {
        self.tell(step, Outcome::Ok, message, "");
    }

    /// A token of ours, and whether we would believe it ourselves.
    fn own_token(
        &mut self,
        identity: &dyn Identity,
        verifier: &dyn Verifier,
    ) -> Result<String, Failure> {
        let token = identity.token(unix_now(), &mut rand::rng()).map_err(|error| {
            let message = format!("we have no token: {error}");
            let advice = "renew the token of --jwt, or look at the key of --identity";
            self.tell("token", Outcome::Failed, message.clone(), advice);
            Failure::Other { code: "no_token", message }
        })?;
        match verifier.verify(&token, unix_now()) {
            Ok(claims) => {
                self.ok("token", format!("our token is good, for {}", visible(&claims.subject)));
            }
            Err(error) => {
                let message = format!("we would not believe our own token: {error}");
                let advice = "with one secret or one list for all, this is the reason; with \
                              keys of each other it need not be";
                self.tell("token", Outcome::Unclear, message, advice);
            }
        }
        Ok(token)
    }

    /// Whether the node lets us have the name.
    async fn subscribe(
        &mut self,
        name: &Name,
        token: &str,
        sender: &LinkSender,
        receiver: &mut LinkReceiver,
    ) -> Result<(), Failure> {
        let mut header = Header::new(name.clone(), name.clone(), UNICAST);
        header.identity = token.to_owned();
        let subscription_id = rand::rng().random_range(1..=u64::MAX);
        let subscription = Message::Subscribe(Subscription { header, subscription_id });
        let deadline = Instant::now() + self.settings.timeout;
        let answer = async {
            sender.send(&subscription).await.map_err(|error| error.to_string())?;
            loop {
                match receiver.recv().await {
                    Ok(Message::SubscriptionAck(ack)) if ack.subscription_id == subscription_id => {
                        return ack.result;
                    }
                    Ok(_) => {}
                    Err(end) => return Err(end.to_string()),
                }
            }
        };
        let answer = timeout_at(deadline, answer).await;
        let reason = match answer {
            Ok(Ok(())) => {
                self.ok("subscribe", format!("the node lets us be {}", self.settings.from));
                return Ok(());
            }
            Ok(Err(reason)) => visible(&reason),
            Err(_) => "it does not answer".to_owned(),
        };
        let message = format!("the node does not let us be {}: {reason}", self.settings.from);
        let advice = "look at the rules and limits in the node's file, and at its log";
        self.tell("subscribe", Outcome::Failed, message, advice);
        Err(Failure::RefusedByNode { node: self.settings.node.clone(), reason })
    }

    /// What the node knows: how many instances of TO have subscribed, if it tells.
    async fn look(&mut self, admin: &Admin, own: &Name) -> Option<u64> {
        let answer = match admin.get("/readyz").await {
            Ok(answer) => answer,
            Err(error) => {
                let message = format!("{admin} tells nothing: {error}");
                self.tell(
                    "admin",
                    Outcome::Unclear,
                    message,
                    "give the address of the node's --admin",
                );
                return None;
            }
        };
        match answer.status {
            200 => self.ok("admin", format!("the node at {admin} is ready")),
            _ => {
                let message =
                    format!("the node at {admin} is not ready: {}", visible(answer.text.trim()));
                let advice = "it is ending; connect to another one, or wait until it is back";
                self.tell("admin", Outcome::Unclear, message, advice);
            }
        }
        if let Some(date) = answer.date {
            let ahead = (date - OffsetDateTime::now_utc()).whole_seconds();
            self.clock("node_clock", "the node's clock", ahead);
        }
        match self.routes(admin, own).await {
            Ok(instances) => Some(instances),
            Err(error) => {
                let message = format!("{admin} does not tell its routes: {error}");
                self.tell("route", Outcome::Unclear, message, "");
                None
            }
        }
    }

    async fn routes(&mut self, admin: &Admin, own: &Name) -> Result<u64, AskError> {
        let (from, to) = (&self.settings.from, &self.settings.to);
        let wanted = (!to.id().is_any()).then(|| to.id().to_string());
        let routes: Routes = admin.json(&format!("/routes?name={}", Encoded(to))).await?;
        let some: Vec<_> =
            routes.routes.iter().filter(|route| wanted.is_none() || route.id == wanted).collect();
        let instances = if wanted.is_some() { some.len() as u64 } else { routes.total };
        if instances == 0 {
            let all: Routes = admin.json("/routes").await?;
            let names = all.routes.iter().map(|route| &*route.name);
            let advice = match nearest(&to.readable(), names) {
                Some(meant) => format!("is {} meant?", visible(meant)),
                None => format!("start it with --local {}, at this node", to.readable()),
            };
            let message = format!("nobody has subscribed to {to} at this node");
            self.tell("route", Outcome::Failed, message, &advice);
        } else {
            let numbers: Vec<u64> = some.iter().flat_map(|route| route.links.clone()).collect();
            let (mut links, _) = admin.links().await?;
            links.retain(|link| numbers.contains(&link.link));
            let who = counted(instances);
            self.ok(
                "route",
                match nodes_to(&links) {
                    None => format!("{to} is at this node, {who}"),
                    Some(nodes) => format!("{to} is reached through {nodes}"),
                },
            );
            self.links(&links);
        }
        let routes: Routes = admin.json(&format!("/routes?name={}", Encoded(from))).await?;
        let own = Some(own.id().to_string());
        match routes.routes.iter().filter(|route| route.id != own).count() {
            0 => {
                let message = format!("{from} itself is not at this node now, we speak for it");
                self.tell(
                    "from",
                    Outcome::Unclear,
                    message,
                    "start it, or look where it connects to",
                );
            }
            others => {
                let who = counted(others as u64);
                self.ok("from", format!("{from} itself is at this node, {who}"));
            }
        }
        Ok(instances)
    }

    /// Whether those who would get it take what they get.
    fn links(&mut self, links: &[admin::Link]) {
        for link in links.iter().filter(|link| link.state != "good") {
            let message = format!(
                "link {} from {}, which leads there, is {}, {} bytes wait for it",
                link.link,
                visible(&link.peer),
                visible(&link.state),
                link.queued_bytes
            );
            let advice = "look whether the application hangs, or its network is too slow";
            self.tell("link", Outcome::Unclear, message, advice);
        }
    }

    fn clock(&mut self, step: &'static str, whose: &str, ahead: i64) {
        let message = match ahead {
            0.. => format!("{whose} is {ahead} s ahead of ours"),
            _ => format!("{whose} is {} s behind ours", -ahead),
        };
        if ahead.abs() > CLOCK_TOLERANCE_SECS {
            self.tell(step, Outcome::Unclear, message, "set both clocks, with NTP for example");
        } else {
            self.ok(step, format!("{whose} agrees with ours"));
        }
    }

    /// How many messages the node's policy has denied, if it tells.
    async fn denied(&self) -> Option<f64> {
        let metrics = self.settings.admin.as_ref()?.text("/metrics").await.ok()?;
        let denied = "slim_dropped_messages_total{reason=\"denied\"}";
        Some(Metrics::parse(&metrics).sum(denied))
    }

    /// Asks TO until it answers or time is up.
    async fn ask(
        &mut self,
        question: Publish,
        sender: &LinkSender,
        receiver: &mut LinkReceiver,
        verifier: &dyn Verifier,
        subscribed: Option<u64>,
    ) -> Result<(), Failure> {
        let to = &self.settings.to.clone();
        let id = question.session_id;
        let question = Message::Publish(question);
        let denied_before = self.denied().await;
        let asked_at = Instant::now();
        let deadline = asked_at + self.settings.timeout;
        let mut again_at = asked_at;
        loop {
            if Instant::now() >= again_at {
                again_at += ASK_INTERVAL;
                // If the link has ended, there will be no answer, which is told.
                sender.send(&question).await.ok();
            }
            match timeout_at(deadline.min(again_at), receiver.recv()).await {
                Ok(Ok(Message::Publish(answer))) if answer.session_id == id => match &answer.body {
                    Body::Command(Command::DiscoveryReply) => {
                        let after = asked_at.elapsed().as_secs_f64() * 1000.0;
                        let who = visible(&answer.header.source.to_string());
                        self.ok("answer", format!("{who} answers after {after:.1} ms"));
                        return self.verify(&answer, verifier);
                    }
                    Body::Command(Command::GroupNack) => return Err(self.refused(&answer)),
                    _ => {}
                },
                Ok(Ok(_)) => {}
                Ok(Err(end)) => {
                    let message = format!("the link has ended: {end}");
                    self.tell("answer", Outcome::Failed, message, "look at the node's log");
                    return Err(Failure::NodeLost { node: self.settings.node.clone() });
                }
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        if let (Some(before), Some(after)) = (denied_before, self.denied().await)
            && after > before
        {
            let from = &self.settings.from;
            let message = format!(
                "the node's policy has denied {} messages while we asked: either {from} may not \
                 publish to {to}, or {to} not to {from}",
                after - before
            );
            let advice = "the node's log has who may not do what; `slim-node policy test` \
                          explains it";
            self.tell("policy", Outcome::Failed, message, advice);
        }
        let (message, advice) = silence(to, subscribed);
        self.tell("answer", Outcome::Failed, message, advice);
        Err(Failure::NoAnswer { peer: to.clone(), within: self.settings.timeout })
    }

    /// Whether we believe who answers. It believes us, or it would not.
    fn verify(&mut self, answer: &Publish, verifier: &dyn Verifier) -> Result<(), Failure> {
        let now = unix_now();
        let (reason, advice) = match verifier.verify(&answer.header.identity, now) {
            Ok(claims) => {
                let subject = visible(&claims.subject);
                self.ok("identity", format!("both sides verify each other; it is {subject}"));
                if let Some(issued_at) = claims.issued_at {
                    // How old a good token is says nothing, but none is from the future.
                    self.clock("clock", "its clock", (issued_at.saturating_sub(now)) as i64);
                }
                return Ok(());
            }
            Err(error @ (VerifyError::Expired { .. } | VerifyError::FromFuture { .. })) => {
                (error.to_string(), "set both clocks, with NTP for example, or renew its token")
            }
            Err(VerifyError::BadMac) => {
                ("the secrets differ".to_owned(), "start both with the same --shared-secret")
            }
            Err(error) => (
                error.to_string(),
                "give --trust, --jwks, --spire-trust-bundle or --oidc-issuer \
                                     what its token is signed with",
            ),
        };
        let message = format!("it answers, but we do not verify it: {reason}");
        self.tell("identity", Outcome::Failed, message, advice);
        let names = self.settings.to.to_string();
        Err(Failure::RefusedByPeers { names, reason: format!("we do not verify it: {reason}") })
    }

    /// It is there, and says that it does not believe us.
    fn refused(&mut self, answer: &Publish) -> Failure {
        let words = answer.metadata.get(canonical::REFUSAL).map(String::as_str).unwrap_or_default();
        let words: String = visible(words).chars().take(MAX_WORDS).collect();
        let reason = match &*words {
            "" => "it does not verify us".to_owned(),
            words => format!("it does not verify us: {words}"),
        };
        let message =
            format!("{} is there, but {reason}", visible(&answer.header.source.to_string()));
        let advice = "give both the same --shared-secret, or have it trust our key or issuer; \
                      where it speaks of time, set both clocks";
        self.tell("identity", Outcome::Failed, message, advice);
        Failure::RefusedByPeers { names: self.settings.to.to_string(), reason }
    }
}

/// The nodes that lead there, if nothing but nodes does.
fn nodes_to(links: &[admin::Link]) -> Option<String> {
    let are_nodes = !links.is_empty() && links.iter().all(|link| link.kind == "peer");
    let nodes = links.iter().map(|link| visible(&link.node_id)).collect::<Vec<_>>();
    are_nodes.then(|| format!("the node {}", nodes.join(", ")))
}

fn counted(instances: u64) -> String {
    match instances {
        1 => "one instance".to_owned(),
        more => format!("{more} instances"),
    }
}

/// Nobody answers: what that means depends on what is known.
fn silence(to: &Name, subscribed: Option<u64>) -> (String, &'static str) {
    match subscribed {
        None => (
            format!("nobody answers as {to}"),
            "look whether it runs and at which node; with --admin we can see whether it has \
             subscribed",
        ),
        Some(0) => (
            format!("nobody answers as {to}, because nobody has subscribed to it"),
            "see the step route",
        ),
        Some(_) => (
            format!("{to} has subscribed, but does not answer"),
            "look whether it hangs, and at its log; at the node's rules for who may send to whom; \
             and give both the same identity: an application of the reference says nothing to \
             whom it does not verify",
        ),
    }
}

/// Is TO there?
fn question(
    source: &Name,
    to: &Name,
    token: String,
    identity: &dyn Identity,
) -> Result<Publish, Failure> {
    let mut rng = rand::rng();
    let mut question = Publish {
        header: Header::new(source.clone(), to.clone(), UNICAST),
        session_type: SessionType::PointToPoint,
        session_id: SessionId(rng.random_range(1..SessionId::LIMIT)),
        message_id: rng.random_range(1..=u32::MAX),
        body: Body::Command(Command::DiscoveryRequest),
        metadata: BTreeMap::new(),
    };
    question.header.identity = token;
    sign_command(identity.key(), &mut question)
        .map_err(|error| Failure::Other { code: "cannot_sign", message: error.to_string() })?;
    Ok(question)
}

fn unix_now() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}

/// The name that may be meant, if it is not the same.
fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |name: &&str| strsim::jaro_winkler(wanted, name);
    let others = names.filter(|name| *name != wanted);
    others.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|n| likeness(n) > LIKENESS)
}

/// A name in a query.
struct Encoded<'a>(&'a Name);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.readable().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_be_meant_is_found() {
        let names = ["org/ns/alice", "org/ns/bob", "x/y/z"];
        let check = |wanted| nearest(wanted, names.into_iter());
        assert_eq!(check("org/ns/alcie"), Some("org/ns/alice"));
        assert_eq!(check("other/thing/else"), None);
        assert_eq!(nearest("org/ns/bob", ["org/ns/bob"].into_iter()), None);
    }

    #[test]
    fn a_name_stands_in_a_query() {
        let name: Name = "org/n s/\u{e4}&b".parse().unwrap();
        assert_eq!(Encoded(&name).to_string(), "org/n%20s/%C3%A4%26b");
    }

    #[test]
    fn another_node_may_lead_there() {
        let link = |kind: &str| admin::Link {
            kind: kind.to_owned(),
            node_id: "slim-2".to_owned(),
            ..admin::Link::default()
        };
        assert_eq!(nodes_to(&[]), None);
        assert_eq!(nodes_to(&[link("peer"), link("edge")]), None);
        assert_eq!(nodes_to(&[link("peer")]).unwrap(), "the node slim-2");
    }

    #[test]
    fn silence_means_what_is_known() {
        let to: Name = "a/b/c".parse().unwrap();
        assert!(silence(&to, None).1.contains("--admin"));
        assert!(silence(&to, Some(0)).0.contains("nobody has subscribed"));
        assert!(silence(&to, Some(2)).0.contains("does not answer"));
    }
}
