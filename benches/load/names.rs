//! Very many names that somebody subscribes to.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use slim_bench::{client, identity, member};
use slim_link::{LinkReceiver, LinkSender};
use slim_proto::{Header, Message, Subscription, UNICAST};
use tokio::time::{Instant, timeout};

use crate::Place;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Answers that may be outstanding: enough to keep the node busy, and no more than
/// fit in its queue.
const IN_FLIGHT: u64 = 512;

/// Names of a link, before the next one has its turn: a node may limit them.
const PER_LINK: u64 = 50_000;

pub(crate) struct Names {
    place: Place,
    /// The last one has its turn.
    links: Vec<(LinkSender, LinkReceiver)>,
    subscribed: u64,
}

impl Names {
    pub(crate) async fn new(place: &Place) -> anyhow::Result<Self> {
        let link = client::connect(&place.node, place.config()).await?;
        Ok(Self { place: place.clone(), links: vec![link], subscribed: 0 })
    }

    /// Subscribes to as many names more, each of a prefix of its own.
    pub(crate) async fn subscribe(&mut self, count: u64) -> anyhow::Result<Value> {
        let started_at = Instant::now();
        let goal = self.subscribed + count;
        while self.subscribed < goal {
            if self.subscribed == self.links.len() as u64 * PER_LINK {
                let link = client::connect(&self.place.node, self.place.config()).await?;
                self.links.push(link);
            }
            let until = goal.min(self.links.len() as u64 * PER_LINK);
            let (sender, receiver) = self.links.last_mut().context("no link")?;
            subscribe(sender, receiver, self.subscribed, until).await?;
            self.subscribed = until;
        }
        Ok(json!({ "names": self.subscribed, "seconds": started_at.elapsed().as_secs_f64() }))
    }
}

/// Subscribes to the names after `first`, up to `last`.
async fn subscribe(
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
    first: u64,
    last: u64,
) -> anyhow::Result<()> {
    let (mut sent, mut answered) = (first, first);
    while answered < last {
        while sent < last.min(answered + IN_FLIGHT) {
            sent += 1;
            let header = Header {
                identity: identity(),
                ..Header::new(member(0), member(sent as usize), UNICAST)
            };
            let subscription = Subscription { header, subscription_id: sent };
            sender.send(&Message::Subscribe(subscription)).await?;
        }
        match timeout(TIMEOUT, receiver.recv()).await.context("no answer")?? {
            Message::SubscriptionAck(ack) => {
                // Some nodes answer in another order.
                let asked = first + 1..=sent;
                ensure!(asked.contains(&ack.subscription_id), "an answer to nothing");
                answered += 1;
                ack.result.map_err(anyhow::Error::msg)?;
            }
            other => bail!("not a subscription ack: {other:?}"),
        }
    }
    Ok(())
}
