//! One publisher, and subscribers that receive everything, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use slim_bench::{client, publish};
use slim_link::{LinkReceiver, LinkSender};
use slim_proto::{Body, Message};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Place;

/// Subscribers that connect at the same time.
const AT_ONCE: usize = 32;

/// How long the node may take no message, and then take to deliver the last one.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Payload types: what ends a step, and everything else.
const LAST: &str = "last";
const MORE: &str = "more";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Links that have subscribed to the channel.
    #[arg(long)]
    subscribers: usize,
    /// Bytes of payload of each message.
    #[arg(long)]
    payload: usize,
    /// Further subscribers, that connect and then do not read.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    /// Messages published a second; without it, as many as the node takes.
    #[arg(long)]
    rate: Option<u32>,
    /// A step ends so many seconds after its last message, whoever has received it.
    /// Without it everybody has to receive everything.
    #[arg(long)]
    patience: Option<f64>,
    /// Each message has a token of its own, as the reference's clients send them;
    /// without it all have the same, as ours send for half a minute.
    #[arg(long)]
    new_tokens: bool,
}

/// Everybody connected and subscribed.
pub(crate) struct Fanout {
    publisher: LinkSender,
    message: slim_proto::Publish,
    rate: Option<u32>,
    patience: Option<Duration>,
    new_tokens: bool,
    subscribers: Vec<Subscriber>,
    /// Links that nobody reads.
    _stalled: Vec<(LinkSender, LinkReceiver)>,
}

/// What a subscriber has received.
struct Subscriber {
    received: Arc<AtomicU64>,
    /// The number of the last message of a step, once it is here.
    last: watch::Receiver<u32>,
}

impl Fanout {
    pub(crate) async fn new(place: &Place, args: &Args) -> anyhow::Result<Self> {
        let all = args.subscribers + args.stalled;
        let mut links: Vec<_> = stream::iter(1..=all)
            .map(|number| client::subscriber(&place.node, place.config(), number))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let stalled = links.split_off(args.subscribers);
        let subscribers = links
            .into_iter()
            .map(|(sender, receiver)| {
                let received = Arc::new(AtomicU64::new(0));
                let (told, last) = watch::channel(0);
                tokio::spawn(receive(sender, receiver, Arc::clone(&received), told));
                Subscriber { received, last }
            })
            .collect();
        let (publisher, mut nothing) = client::connect(&place.node, place.config()).await?;
        tokio::spawn(async move { while nothing.recv().await.is_ok() {} });
        let Message::Publish(message) = publish(args.payload) else {
            unreachable!("it is a publish");
        };
        Ok(Self {
            publisher,
            message: slim_proto::Publish { message_id: 0, ..message },
            rate: args.rate,
            patience: args.patience.map(Duration::from_secs_f64),
            new_tokens: args.new_tokens,
            subscribers,
            _stalled: stalled,
        })
    }

    /// Publishes for some seconds, then waits until all has been received.
    pub(crate) async fn publish(&mut self, seconds: f64) -> anyhow::Result<Value> {
        let before = self.received();
        let started_at = Instant::now();
        let end = started_at + Duration::from_secs_f64(seconds);
        let mut published = 0;
        while Instant::now() < end && self.send(MORE).await? {
            published += 1;
            if let Some(rate) = self.rate {
                sleep_until(started_at + Duration::from_secs(1) * published / rate).await;
            }
        }
        published += u32::from(self.send(LAST).await?);
        let last = self.message.message_id;
        let arrivals = self.subscribers.iter_mut().map(async |subscriber| {
            subscriber.last.wait_for(|number| *number == last).await.map(drop)
        });
        let everybody = timeout(self.patience.unwrap_or(TIMEOUT), try_join_all(arrivals)).await;
        let elapsed = started_at.elapsed().as_secs_f64();
        let deliveries = self.received() - before;
        if self.patience.is_none() {
            everybody.context("a message is lost")?.context("a link is lost")?;
            let expected = u64::from(published) * self.subscribers.len() as u64;
            ensure!(deliveries == expected, "{deliveries} of {expected} deliveries");
        }
        Ok(json!({ "published": published, "deliveries": deliveries, "seconds": elapsed }))
    }

    /// Sends the next message. False: the node has stood still for as long as one is
    /// willing to wait.
    async fn send(&mut self, payload_type: &str) -> anyhow::Result<bool> {
        let mut message = self.message.clone();
        message.message_id += 1;
        if let Body::Msg(payload) = &mut message.body {
            payload.payload_type = payload_type.to_owned();
        }
        let message_id = message.message_id;
        if self.new_tokens {
            let len = message.header.identity.len();
            message.header.identity = format!("{message_id:0>len$}");
        }
        let message = Message::Publish(message);
        match timeout(self.patience.unwrap_or(TIMEOUT), self.publisher.send(&message)).await {
            Ok(sent) => sent?,
            Err(_) if self.patience.is_some() => return Ok(false),
            Err(_) => bail!("the node takes no more"),
        }
        self.message.message_id = message_id;
        Ok(true)
    }

    fn received(&self) -> u64 {
        self.subscribers.iter().map(|one| one.received.load(Ordering::Relaxed)).sum()
    }
}

/// Receives until the link ends, or a message is not the next one.
async fn receive(
    // Held as long as messages are received: without it the link ends.
    _sender: LinkSender,
    mut receiver: LinkReceiver,
    received: Arc<AtomicU64>,
    last: watch::Sender<u32>,
) {
    let mut expected = 1;
    while let Ok(Message::Publish(message)) = receiver.recv().await
        && message.message_id == expected
    {
        expected += 1;
        received.fetch_add(1, Ordering::Relaxed);
        if matches!(&message.body, Body::Msg(payload) if payload.payload_type == LAST) {
            last.send_replace(message.message_id);
        }
    }
}
