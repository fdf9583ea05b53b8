//! A group whose members are all here.

use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use slim_client::{Client, DeliveryReport, PublishError, Session, SessionConfig, SessionEvent};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::{self, Load};
use super::pace::Pace;
use super::report::{Latencies, Report, seconds};
use super::stamp::{Stamp, now};
use super::{Stage, cpu, numbers, session_failure};
use crate::failure::Failure;
use crate::output::Event;

/// Who takes part, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast<'a> {
    /// The moderator included.
    pub(crate) members: usize,
    /// The first so many of them publish.
    pub(crate) publishers: usize,
    /// Of each publisher.
    pub(crate) in_flight: usize,
    /// Of the group.
    pub(crate) session: &'a args::Session,
}

/// Joins, publishes messages of this size, and closes.
pub(crate) async fn run(
    stage: &mut Stage<'_>,
    cast: Cast<'_>,
    load: &Load,
    size: usize,
) -> Result<Option<Report>, Failure> {
    let Cast { members, publishers, in_flight, session } = cast;
    stage.progress.wait("connecting");
    let names = numbers(&stage.settings.local, members);
    let connecting = stage.clients(names, session);
    let Some(clients) = stage.unless_halted(connecting).await? else { return Ok(None) };
    stage.progress.wait("joining");
    let joined_at = Instant::now();
    let joining = join(&clients, session);
    let Some(sessions) = stage.unless_halted(joining).await? else { return Ok(None) };
    let join_seconds = seconds(joined_at.elapsed());
    stage.tell(&Event::Joined { clients: members, join_seconds });

    stage.progress.load(load.limit, size);
    let (started_at, cpu_before) = (Instant::now(), cpu());
    let mut listeners = JoinSet::new();
    for session in &sessions {
        listeners.spawn(listen(session.clone()));
    }
    let pace = Pace::start(load, &stage.halt);
    let mut tasks = JoinSet::new();
    for session in sessions.iter().take(publishers) {
        let publisher = Publisher { session: session.clone(), size, in_flight };
        let (pace, progress) = (pace.clone(), stage.progress.clone());
        tasks.spawn(async move { publisher.run(&pace, || progress.step()).await });
    }
    let mut sent = Sent::default();
    while let Some(result) = tasks.join_next().await {
        let result = result.map_err(|_| stage.node_lost("a publisher did not survive"))?;
        sent.add(result.map_err(|error| session_failure(&error))?);
    }
    let (took, cpu) = (started_at.elapsed(), Some(cpu() - cpu_before));

    stage.progress.wait("closing");
    sessions[0].close().await;
    let (mut received, mut latencies) = (0, Latencies::new());
    while let Some(result) = listeners.join_next().await {
        let heard = result.map_err(|_| stage.node_lost("a member did not survive"))?;
        received += heard.received;
        latencies.add(&heard.latencies);
    }
    for client in clients {
        client.shutdown().await;
    }
    let expected = sent.published * (members as u64 - 1);
    let report = Report {
        bench: "channel",
        size: Some(size),
        clients: members,
        publishers: Some(publishers),
        in_flight: Some(in_flight),
        mls: Some(session.mls),
        join_seconds: Some(join_seconds),
        published: Some(sent.published),
        delivered: Some(received),
        lost: Some(expected.saturating_sub(received)),
        latency_us: latencies.percentiles(),
        acknowledged_us: sent.acknowledged.and_then(|latencies| latencies.percentiles()),
        complete: !stage.halt.is_set(),
        ..Report::default()
    };
    Ok(Some(report.timed(took, cpu)))
}

/// The first client invites all others at once. Gives each one's session, the
/// moderator's first.
async fn join(clients: &[Client], settings: &args::Session) -> Result<Vec<Session>, Failure> {
    let (moderator, members) = clients.split_first().expect("a group has two members or more");
    let config = SessionConfig {
        timers: Some(settings.timers),
        mls: settings.mls,
        ..SessionConfig::default()
    };
    let channel = moderator.name().without_id();
    let session =
        moderator.create_group(channel, config).await.map_err(|error| session_failure(&error))?;
    let joined = try_join_all(members.iter().map(|member| async {
        session.invite(member.name()).await.map_err(|error| Failure::NotJoined {
            name: member.name().clone(),
            reason: error.to_string(),
        })
    }))
    .await?;
    debug_assert_eq!(joined.len(), members.len());
    // They have them already: a welcome is confirmed after the session is there.
    let theirs = members.iter().map(|member| async {
        member.listen_for_session().await.ok_or_else(|| Failure::NotJoined {
            name: member.name().clone(),
            reason: "its link was lost".to_owned(),
        })
    });
    let mut sessions = vec![session.clone()];
    sessions.extend(try_join_all(theirs).await?);
    Ok(sessions)
}

struct Publisher {
    session: Session,
    size: usize,
    in_flight: usize,
}

/// What one publisher did.
#[derive(Debug, Default)]
struct Sent {
    published: u64,
    acknowledged: Option<Latencies>,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.published += other.published;
        if let Some(latencies) = other.acknowledged {
            self.acknowledged.get_or_insert_with(Latencies::new).add(&latencies);
        }
    }
}

impl Publisher {
    /// Publishes when it is its turn and enough is acknowledged.
    async fn run(self, pace: &Pace, step: impl Fn()) -> Result<Sent, PublishError> {
        let (mut published, mut acknowledged) = (0, Latencies::new());
        let mut waiting = FuturesUnordered::new();
        let mut turn = pace.take();
        loop {
            let has_room = waiting.len() < self.in_flight;
            tokio::select! {
                Some((sent_at, report)) = waiting.next() => {
                    let report: Result<DeliveryReport, PublishError> = report;
                    if report?.lost.is_empty() {
                        acknowledged.record(now().saturating_sub(sent_at));
                    }
                    step();
                }
                goes_on = pace.wait(turn), if has_room && turn.is_some() => {
                    if !goes_on {
                        turn = None;
                        continue;
                    }
                    let sent_at = now();
                    let stamp = Stamp::of(published, sent_at);
                    let delivery = self.session.publish(stamp.payload(self.size)).await?;
                    waiting.push(async move { (sent_at, delivery.await) });
                    published += 1;
                    turn = pace.take();
                }
                else => return Ok(Sent { published, acknowledged: Some(acknowledged) }),
            }
        }
    }
}

/// What a member got until the group was closed.
#[derive(Debug)]
struct Heard {
    received: u64,
    latencies: Latencies,
}

async fn listen(session: Session) -> Heard {
    let mut heard = Heard { received: 0, latencies: Latencies::new() };
    while let Some(event) = session.next_event().await {
        if let SessionEvent::Message(message) = event
            && let Some(stamp) = Stamp::read(&message.payload)
        {
            heard.received += 1;
            heard.latencies.record(now().saturating_sub(stamp.sent_at));
        }
    }
    heard
}
