//! Requests and replies, each caller in a point-to-point session of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use slim_client::{Client, Name, Session, SessionConfig, SessionEvent};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::args::{self, Load};
use super::pace::Pace;
use super::report::{Latencies, Report, seconds};
use super::stamp::{Stamp, now};
use super::{Stage, cpu, numbers, session_failure};
use crate::failure::Failure;
use crate::output::Event;
use crate::p2p::call_failure;

/// Who calls whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast<'a> {
    /// Callers.
    pub(crate) clients: usize,
    /// None: each caller has a peer here.
    pub(crate) remote: Option<&'a Name>,
    /// Of each caller.
    pub(crate) in_flight: usize,
    /// Of each call.
    pub(crate) session: &'a args::Session,
}

/// Calls, sends requests of this size, and hangs up.
pub(crate) async fn run(
    stage: &mut Stage<'_>,
    cast: Cast<'_>,
    load: &Load,
    size: usize,
) -> Result<Option<Report>, Failure> {
    let Cast { clients, remote, in_flight, session } = cast;
    stage.progress.wait("connecting");
    let peers = if remote.is_some() { 0 } else { clients };
    let names = numbers(&stage.settings.local, clients + peers);
    let connecting = stage.clients(names, session);
    let Some(all) = stage.unless_halted(connecting).await? else { return Ok(None) };
    let (callers, peers) = all.split_at(clients);
    let mut answering = JoinSet::new();
    for peer in peers {
        answering.spawn(answer(peer.clone()));
    }
    stage.progress.wait("calling");
    let called_at = Instant::now();
    let calling = try_join_all(callers.iter().enumerate().map(|(number, caller)| {
        let peer = match remote {
            Some(remote) => remote,
            None => peers[number].name(),
        };
        call(caller, peer, session)
    }));
    let Some(sessions) = stage.unless_halted(calling).await? else { return Ok(None) };
    let join_seconds = seconds(called_at.elapsed());
    stage.tell(&Event::Joined { clients, join_seconds });

    stage.progress.load(load.limit, size);
    let (started_at, cpu_before) = (Instant::now(), cpu());
    let pace = Pace::start(load, &stage.halt);
    let mut tasks = JoinSet::new();
    for opened in &sessions {
        let patience = session.timers.limit();
        let caller = Caller { session: opened.clone(), size, in_flight, patience };
        let (pace, progress) = (pace.clone(), stage.progress.clone());
        tasks.spawn(async move { caller.run(&pace, || progress.step()).await });
    }
    let (mut published, mut answered, mut latencies) = (0, 0, Latencies::new());
    while let Some(result) = tasks.join_next().await {
        let asked = result.map_err(|_| stage.node_lost("a caller did not survive"))??;
        published += asked.published;
        answered += asked.answered;
        latencies.add(&asked.latencies);
    }
    let (took, cpu) = (started_at.elapsed(), Some(cpu() - cpu_before));
    stage.progress.wait("closing");
    for session in sessions {
        session.close().await;
    }
    answering.shutdown().await;
    for client in all {
        client.shutdown().await;
    }
    let report = Report {
        bench: "request",
        size: Some(size),
        clients,
        in_flight: Some(in_flight),
        mls: Some(session.mls),
        join_seconds: Some(join_seconds),
        published: Some(published),
        delivered: Some(answered),
        lost: Some(published - answered),
        latency_us: latencies.percentiles(),
        complete: !stage.halt.is_set(),
        ..Report::default()
    };
    Ok(Some(report.timed(took, cpu)))
}

async fn call(caller: &Client, peer: &Name, settings: &args::Session) -> Result<Session, Failure> {
    let config = SessionConfig {
        timers: Some(settings.timers),
        mls: settings.mls,
        ..SessionConfig::default()
    };
    caller.create_p2p(peer.clone(), config).await.map_err(|error| call_failure(peer, error))
}

/// Sends back what it gets.
async fn answer(client: Client) {
    let mut sessions = JoinSet::new();
    while let Some(session) = client.listen_for_session().await {
        sessions.spawn(async move {
            while let Some(event) = session.next_event().await {
                if let SessionEvent::Message(message) = event
                    && session.publish(message.payload).await.is_err()
                {
                    return;
                }
            }
        });
    }
}

struct Caller {
    session: Session,
    size: usize,
    in_flight: usize,
    /// After this a reply does not count any more.
    patience: Duration,
}

/// What one caller did.
#[derive(Debug)]
struct Asked {
    published: u64,
    answered: u64,
    latencies: Latencies,
}

impl Caller {
    /// Asks when it is its turn and enough is answered.
    async fn run(self, pace: &Pace, step: impl Fn()) -> Result<Asked, Failure> {
        let mut asked = Asked { published: 0, answered: 0, latencies: Latencies::new() };
        // By number, so the oldest is first.
        let mut waiting: BTreeMap<u64, (u64, Instant)> = BTreeMap::new();
        let mut turn = pace.take();
        while turn.is_some() || !waiting.is_empty() {
            let has_room = waiting.len() < self.in_flight;
            let overdue = waiting.first_key_value().map(|(_, (_, at))| *at + self.patience);
            tokio::select! {
                event = self.session.next_event() => match event {
                    Some(SessionEvent::Message(message)) => {
                        let number = Stamp::read(&message.payload).map(|stamp| stamp.number);
                        if let Some((sent_at, _)) = number.and_then(|number| waiting.remove(&number))
                        {
                            asked.latencies.record(now().saturating_sub(sent_at));
                            asked.answered += 1;
                            step();
                        }
                    }
                    None | Some(SessionEvent::Closed { .. }) => {
                        return Err(Failure::LeftWithoutAnswer {
                            peer: self.session.info().remote.clone(),
                        });
                    }
                    Some(_) => {}
                },
                goes_on = pace.wait(turn), if has_room && turn.is_some() => {
                    if !goes_on {
                        turn = None;
                        continue;
                    }
                    let (sent_at, at) = (now(), Instant::now());
                    let payload = Stamp::of(asked.published, sent_at).payload(self.size);
                    let published = self.session.publish(payload).await;
                    // What becomes of it is seen by its reply.
                    drop(published.map_err(|error| session_failure(&error))?);
                    waiting.insert(asked.published, (sent_at, at));
                    asked.published += 1;
                    turn = pace.take();
                }
                () = until(overdue) => {
                    waiting.pop_first();
                }
            }
        }
        Ok(asked)
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
