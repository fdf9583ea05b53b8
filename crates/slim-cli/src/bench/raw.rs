//! Without sessions: one message after the other through bare links.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slim_client::{Link, LinkReceiver, LinkSender, SendError};
use slim_proto::{
    AppPayload, BROADCAST, Body, Header, Message, Name, NameId, Publish, SessionId, SessionType,
    Subscription, UNICAST,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::args::{Load, Settings};
use super::pace::Pace;
use super::report::{Latencies, Report};
use super::stamp::{Kind, Stamp, now};
use super::{Measured, Stage, cpu, numbered};
use crate::failure::Failure;
use crate::output::Event;

/// How long a publisher waits for the node to take the rest, and a subscriber for the
/// answer to its subscription.
const NODE_LIMIT: Duration = Duration::from_secs(30);

/// How long a subscriber waits for another message, once one has come.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

// ------------------------------------------------------------ pub

/// Publishes messages of this size. `is_last`: no other size follows.
pub(crate) async fn publish(
    stage: &Stage<'_>,
    clients: usize,
    remote: &Name,
    load: &Load,
    size: usize,
    is_last: bool,
) -> Result<Option<Report>, Failure> {
    stage.progress.wait("connecting");
    let Some(links) = stage.unless_halted(connect(stage, clients)).await? else {
        return Ok(None);
    };
    let run = rand::random();
    stage.progress.load(load.limit, size);
    let pace = Pace::start(load, &stage.halt);
    let (started_at, cpu_before) = (Instant::now(), cpu());
    let mut publishers = JoinSet::new();
    for (number, link) in links.into_iter().enumerate() {
        let stamp = Stamp {
            run,
            // There are fewer than there are numbers.
            publisher: number as u16,
            publishers: clients as u16,
            number: 0,
            sent_at: 0,
            kind: if is_last { Kind::Over } else { Kind::End },
        };
        let publisher = Publisher {
            source: client_name(stage.settings, number),
            destination: remote.without_id(),
            session: SessionId(run % SessionId::LIMIT),
            size,
            end: stamp,
        };
        let (pace, progress) = (pace.clone(), stage.progress.clone());
        publishers.spawn(async move { publisher.run(link, &pace, || progress.step()).await });
    }
    let mut published = 0;
    while let Some(result) = publishers.join_next().await {
        let result = result.unwrap_or_else(|_| Err("a publisher did not survive".to_owned()));
        published += result.map_err(|reason| stage.node_lost(&reason))?;
    }
    let report = Report {
        bench: "pub",
        size: Some(size),
        clients,
        published: Some(published),
        complete: !stage.halt.is_set(),
        ..Report::default()
    };
    Ok(Some(report.timed(started_at.elapsed(), Some(cpu() - cpu_before))))
}

struct Publisher {
    source: Name,
    destination: Name,
    session: SessionId,
    size: usize,
    /// Its last message, but for number and time.
    end: Stamp,
}

impl Publisher {
    /// Publishes when it is its turn; gives how many, once the node has them all.
    async fn run(self, link: Link, pace: &Pace, step: impl Fn()) -> Result<u64, String> {
        let (sender, mut receiver) = link.split();
        let mut number = 0;
        while let Some(turn) = pace.take() {
            if !pace.wait(Some(turn)).await {
                break;
            }
            self.send(&sender, number, Kind::Data).await?;
            number += 1;
            step();
        }
        self.send(&sender, number, self.end.kind).await?;
        sender.close();
        let drained = async { while receiver.recv().await.is_ok() {} };
        timeout(NODE_LIMIT, drained)
            .await
            .map_err(|_| format!("the node did not take the rest within {NODE_LIMIT:?}"))?;
        Ok(number)
    }

    async fn send(&self, sender: &LinkSender, number: u64, kind: Kind) -> Result<(), String> {
        let stamp = Stamp { number, sent_at: now(), kind, ..self.end };
        let message = Message::Publish(Publish {
            header: Header::new(self.source.clone(), self.destination.clone(), BROADCAST),
            session_type: SessionType::Multicast,
            session_id: self.session,
            message_id: number as u32,
            body: Body::Msg(AppPayload {
                payload_type: String::new(),
                blob: stamp.payload(self.size),
            }),
            metadata: BTreeMap::new(),
        });
        sender.send(&message).await.map_err(|error: SendError| error.to_string())
    }
}

// ------------------------------------------------------------ sub

/// Receives until everybody has published everything. One report for each size.
pub(crate) async fn subscribe(
    stage: &mut Stage<'_>,
    clients: usize,
    remote: &Name,
    duration: Option<Duration>,
) -> Result<Measured, Failure> {
    stage.progress.wait("connecting");
    let subscribing = async {
        let mut links = Vec::with_capacity(clients);
        for (number, link) in connect(stage, clients).await?.into_iter().enumerate() {
            let source = client_name(stage.settings, number);
            let (sender, mut receiver) = link.split();
            timeout(NODE_LIMIT, ask(&sender, &mut receiver, source, remote))
                .await
                .unwrap_or_else(|_| Err("it does not answer the subscription".to_owned()))
                .map_err(|reason| stage.refused(&reason))?;
            links.push((sender, receiver));
        }
        Ok(links)
    };
    let Some(links) = stage.unless_halted(subscribing).await? else {
        return Ok(Measured::default());
    };
    stage.tell(&Event::Waiting);
    stage.progress.receive();
    let until = duration.map(|duration| Instant::now() + duration);
    let cpu_before = cpu();
    let mut subscribers = JoinSet::new();
    for (sender, receiver) in links {
        let (halt, progress) = (stage.halt.clone(), stage.progress.clone());
        subscribers.spawn(async move {
            let mut heard = Heard::default();
            let ended = tokio::select! {
                ended = heard.listen(receiver, until, || progress.step()) => ended,
                () = halt.wait() => Ok(()),
            };
            drop(sender);
            (heard, ended)
        });
    }
    let mut all = Heard::default();
    let mut lost_link = None;
    while let Some(result) = subscribers.join_next().await {
        let Ok((heard, ended)) = result else {
            return Err(stage.node_lost("a subscriber did not survive"));
        };
        all.add(heard);
        lost_link = lost_link.or_else(|| ended.err());
    }
    // Of several sizes one does not know which took it.
    let cpu = (all.sizes.len() == 1).then(|| cpu() - cpu_before);
    let complete = !stage.halt.is_set() && lost_link.is_none();
    let reports: Vec<Report> = (all.sizes.into_iter())
        .map(|(size, tally)| tally.report(size, clients, cpu, complete))
        .collect();
    let failure = match lost_link {
        Some(reason) => Some(stage.node_lost(&reason)),
        None => (reports.is_empty() && !stage.halt.is_set()).then_some(Failure::NothingReceived),
    };
    Ok(Measured { reports, failure })
}

/// Subscribes and waits for the node's answer.
async fn ask(
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
    source: Name,
    remote: &Name,
) -> Result<(), String> {
    const ID: u64 = 1;
    let header = Header::new(source, remote.without_id(), UNICAST);
    let subscription = Subscription { header, subscription_id: ID };
    let sent = sender.send(&Message::Subscribe(subscription)).await;
    sent.map_err(|error| error.to_string())?;
    loop {
        match receiver.recv().await.map_err(|end| end.to_string())? {
            Message::SubscriptionAck(ack) if ack.subscription_id == ID => return ack.result,
            _ => {}
        }
    }
}

/// What one subscriber heard.
#[derive(Debug, Default)]
struct Heard {
    sizes: BTreeMap<usize, Tally>,
    streams: BTreeMap<(u32, u16), Stream>,
    /// The publishers of each run that have ended for good.
    over: BTreeMap<u32, BTreeSet<u16>>,
}

/// Of one publisher.
#[derive(Debug)]
struct Stream {
    size: usize,
    /// The first number that came.
    first: u64,
    received: u64,
}

/// Of one size.
#[derive(Debug)]
struct Tally {
    received: u64,
    lost: u64,
    first: Instant,
    last: Instant,
    latencies: Latencies,
}

impl Heard {
    /// Ends when all publishers have, at `until`, or when nothing comes any more.
    async fn listen(
        &mut self,
        mut receiver: LinkReceiver,
        until: Option<Instant>,
        step: impl Fn(),
    ) -> Result<(), String> {
        let mut heard_at = None;
        loop {
            let idle = heard_at.map(|at: Instant| at + IDLE_LIMIT);
            let deadline = [idle, until].into_iter().flatten().min();
            let message = tokio::select! {
                biased;
                message = receiver.recv() => message.map_err(|end| end.to_string())?,
                () = at(deadline) => return Ok(()),
            };
            let Message::Publish(Publish { body: Body::Msg(payload), .. }) = message else {
                continue;
            };
            let Some(stamp) = Stamp::read(&payload.blob) else { continue };
            let now_at = Instant::now();
            heard_at = Some(now_at);
            step();
            if self.take(stamp, payload.blob.len(), now_at) || until.is_some_and(|at| at <= now_at)
            {
                return Ok(());
            }
        }
    }

    /// One more message. True: it was the last of all.
    fn take(&mut self, stamp: Stamp, size: usize, at: Instant) -> bool {
        let Stamp { run, publisher, publishers, number, sent_at, kind } = stamp;
        if kind == Kind::Data {
            let tally = self.sizes.entry(size).or_insert_with(|| Tally::new(at));
            tally.received += 1;
            tally.last = at;
            tally.latencies.record(now().saturating_sub(sent_at));
            let new = Stream { size, first: number, received: 0 };
            self.streams.entry((run, publisher)).or_insert(new).received += 1;
            return false;
        }
        if let Some(Stream { size, first, received }) = self.streams.remove(&(run, publisher))
            && let Some(tally) = self.sizes.get_mut(&size)
        {
            tally.lost += number.saturating_sub(first).saturating_sub(received);
        }
        let over = self.over.entry(run).or_default();
        over.insert(publisher);
        kind == Kind::Over && over.len() >= usize::from(publishers)
    }

    fn add(&mut self, other: Self) {
        for (size, tally) in other.sizes {
            match self.sizes.entry(size) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(tally);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().add(&tally);
                }
            }
        }
    }
}

impl Tally {
    fn new(at: Instant) -> Self {
        Self { received: 0, lost: 0, first: at, last: at, latencies: Latencies::new() }
    }

    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.latencies.add(&other.latencies);
    }

    fn report(self, size: usize, clients: usize, cpu: Option<Duration>, complete: bool) -> Report {
        let report = Report {
            bench: "sub",
            size: Some(size),
            clients,
            delivered: Some(self.received),
            lost: Some(self.lost),
            latency_us: self.latencies.percentiles(),
            complete,
            ..Report::default()
        };
        report.timed(self.last - self.first, cpu)
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

// ------------------------------------------------------------ both

async fn connect(stage: &Stage<'_>, clients: usize) -> Result<Vec<Link>, Failure> {
    let mut links = Vec::with_capacity(clients);
    for _ in 0..clients {
        let node = &stage.settings.node;
        let timeout = stage.settings.connect_timeout;
        let shown = node.authorization();
        let link = slim_client::dial(&node.endpoint, &node.tls, shown.as_ref(), timeout);
        links.push(link.await.map_err(|error| stage.unreachable(error))?);
    }
    Ok(links)
}

/// A name that nobody else has.
fn client_name(settings: &Settings, number: usize) -> Name {
    numbered(&settings.local, number).with_id(NameId(rand::random()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;

    fn stamp(publisher: u16, number: u64, kind: Kind) -> Stamp {
        Stamp { run: 1, publisher, publishers: 2, number, sent_at: now(), kind }
    }

    fn take(heard: &mut Heard, publisher: u16, number: u64, kind: Kind) -> bool {
        heard.take(stamp(publisher, number, kind), SIZE, Instant::now())
    }

    #[test]
    fn it_is_over_when_all_publishers_say_so() {
        let mut heard = Heard::default();
        assert!(!take(&mut heard, 0, 0, Kind::Data));
        assert!(!take(&mut heard, 0, 1, Kind::End), "another size follows");
        assert!(!take(&mut heard, 0, 1, Kind::Over));
        assert!(!take(&mut heard, 0, 1, Kind::Over), "it counts once");
        assert!(take(&mut heard, 1, 0, Kind::Over));
    }

    #[test]
    fn what_is_missing_between_the_first_and_the_end_is_lost() {
        let mut heard = Heard::default();
        for number in [5, 6, 9] {
            take(&mut heard, 0, number, Kind::Data);
        }
        take(&mut heard, 1, 0, Kind::Data);
        take(&mut heard, 0, 10, Kind::Over);
        take(&mut heard, 1, 1, Kind::Over);
        let tally = &heard.sizes[&SIZE];
        assert_eq!((tally.received, tally.lost), (4, 2));
    }

    #[test]
    fn subscribers_add_up() {
        let mut all = Heard::default();
        for _ in 0..3 {
            let mut heard = Heard::default();
            take(&mut heard, 0, 0, Kind::Data);
            all.add(heard);
        }
        assert_eq!(all.sizes[&SIZE].received, 3);
    }
}
