//! Links that come, subscribe to a name of their own, and go or stay.

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use slim_bench::{client, member};
use slim_link::{LinkReceiver, LinkSender};
use tokio::time::Instant;

use crate::Place;

/// Idle links that connect at the same time.
const AT_ONCE: usize = 32;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many connect at the same time.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
}

/// A number of links, each from the connection to the end.
pub(crate) async fn come_and_go(place: &Place, args: &Args, count: usize) -> anyhow::Result<Value> {
    let started_at = Instant::now();
    stream::iter(1..=count)
        .map(|number| async move { open(place, number).await.map(drop) })
        .buffer_unordered(args.at_once)
        .try_collect::<()>()
        .await?;
    Ok(json!({ "links": count, "seconds": started_at.elapsed().as_secs_f64() }))
}

/// As many links more, which stay.
pub(crate) async fn stay(
    place: &Place,
    links: &mut Vec<(LinkSender, LinkReceiver)>,
    count: usize,
) -> anyhow::Result<Value> {
    let numbers = links.len() + 1..links.len() + 1 + count;
    let more: Vec<_> = stream::iter(numbers)
        .map(|number| open(place, number))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    links.extend(more);
    Ok(json!({ "links": links.len() }))
}

async fn open(place: &Place, number: usize) -> anyhow::Result<(LinkSender, LinkReceiver)> {
    let (sender, mut receiver) = client::connect(&place.node, place.config()).await?;
    client::subscribe(&sender, &mut receiver, &member(number), number as u64)
        .await
        .with_context(|| format!("link {number}"))?;
    Ok((sender, receiver))
}
