//! Clients that are links and nothing else: no session, no engine.

use anyhow::{Context, bail, ensure};
use slim_link::{DialConfig, LinkReceiver, LinkSender, Target, dial};
use slim_proto::{Header, Message, Name, Subscription, UNICAST};

use crate::{channel, identity, member};

/// Opens a link.
///
/// # Errors
/// If the node does not answer, or offers no key where one is required.
pub async fn connect(
    node: &Target,
    config: DialConfig,
) -> anyhow::Result<(LinkSender, LinkReceiver)> {
    let required = config.require_header_mac;
    let link = dial(node, &config).await.with_context(|| format!("connecting to {node}"))?;
    ensure!(link.info().has_mac == required, "header MAC: {}", link.info().has_mac);
    Ok(link.split())
}

/// Opens a link and subscribes to the [`channel`].
///
/// # Errors
/// As [`connect`] and [`subscribe`].
pub async fn subscriber(
    node: &Target,
    config: DialConfig,
    number: usize,
) -> anyhow::Result<(LinkSender, LinkReceiver)> {
    let (sender, mut receiver) = connect(node, config).await?;
    subscribe(&sender, &mut receiver, &channel(), number as u64).await?;
    Ok((sender, receiver))
}

/// Subscribes to a name and waits for the node's answer. Numbers begin with 1.
///
/// # Errors
/// If the link is lost or the subscription refused.
pub async fn subscribe(
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
    name: &Name,
    number: u64,
) -> anyhow::Result<()> {
    let header = Header {
        identity: identity(),
        ..Header::new(member(number as usize), name.clone(), UNICAST)
    };
    let subscription = Subscription { header, subscription_id: number };
    sender.send(&Message::Subscribe(subscription)).await?;
    match receiver.recv().await? {
        Message::SubscriptionAck(ack) => {
            ensure!(ack.subscription_id == number, "an ack of another subscription");
            ack.result.map_err(anyhow::Error::msg).context("refused")
        }
        other => bail!("not a subscription ack: {other:?}"),
    }
}
