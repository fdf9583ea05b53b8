//! What holding and dropping handles does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use slim_client::{ParticipantChange, SessionConfig, SessionEvent};
use slim_testkit::{Cluster, messages, next_session, within};
use tokio::time::timeout;

/// A session that nobody listened for does not keep its client alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_client_ends_even_if_it_was_invited() {
    let cluster = Cluster::start().await;
    let moderator = cluster.client("mod").await;
    let alice = cluster.client("alice").await;
    let session = moderator
        .create_group("org/test/channel".parse().unwrap(), SessionConfig::default())
        .await
        .unwrap();
    within("joining", session.invite(&alice.name().without_id())).await.unwrap();
    let mut events = alice.events();
    drop(alice);
    let end = timeout(Duration::from_secs(5), events.next()).await;
    assert!(matches!(end, Ok(None)), "the client lives on: {end:?}");
}

/// The handle of the session before is dropped late.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_handle_does_not_end_the_new_session() {
    let cluster = Cluster::start().await;
    let moderator = cluster.client("mod").await;
    let alice = cluster.client("alice").await;
    let session = moderator
        .create_group("org/test/channel".parse().unwrap(), SessionConfig::default())
        .await
        .unwrap();
    let name = alice.name().without_id();
    within("joining", session.invite(&name)).await.unwrap();
    let old = next_session(&alice).await;
    within("removing", session.remove(&name)).await.unwrap();
    within("joining again", session.invite(&name)).await.unwrap();
    let new = next_session(&alice).await;
    drop(old);
    // The driver has seen the signal once it answers something later.
    for _ in 0..20 {
        new.state().await;
    }
    let report = within("a report", session.publish("hello").await.unwrap()).await.unwrap();
    assert_eq!(report.delivered.len(), 1, "{report:?}");
    let got = timeout(Duration::from_secs(5), messages(&new, 1)).await;
    assert!(got.is_ok(), "nothing came");
}

/// Dropping everything leaves the sessions, as the documentation says.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_everything_leaves() {
    let cluster = Cluster::start().await;
    let moderator = cluster.client("mod").await;
    let mut left = 0;
    for n in 0..10 {
        let alice = cluster.client("alice").await;
        let channel = format!("org/test/channel{n}").parse().unwrap();
        let session = moderator.create_group(channel, SessionConfig::default()).await.unwrap();
        within("joining", session.invite(alice.name())).await.unwrap();
        let hers = next_session(&alice).await;
        drop(alice);
        drop(hers);
        let gone = async {
            while let Some(event) = session.next_event().await {
                if matches!(
                    event,
                    SessionEvent::Participant { change: ParticipantChange::Left, .. }
                ) {
                    return;
                }
            }
        };
        left += usize::from(timeout(Duration::from_secs(3), gone).await.is_ok());
    }
    assert_eq!(left, 10, "only so many of 10 left");
}
