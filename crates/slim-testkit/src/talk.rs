//! Groups in which everybody speaks.

use std::collections::BTreeMap;
use std::time::Duration;

use slim_client::{Client, Session, SessionConfig};
use tokio::time::sleep;

use crate::{messages, next_session, within};

/// A group whose first member moderates.
///
/// # Panics
/// If somebody does not join.
pub async fn group(clients: &[Client], config: SessionConfig) -> Vec<Session> {
    let [moderator, others @ ..] = clients else { panic!("no moderator") };
    let channel = "org/test/channel".parse().expect("it works");
    let session = moderator.create_group(channel, config).await.expect("it works");
    let mut sessions = vec![session.clone()];
    for other in others {
        let joined = within("an invitation", session.invite(&other.name().without_id())).await;
        assert_eq!(joined.expect("it works"), *other.name());
        sessions.push(next_session(other).await);
    }
    sessions
}

/// Everybody speaks at once; everybody hears everybody, once, in order.
///
/// # Panics
/// If something is lost, comes twice or in another order.
pub async fn everybody_speaks(sessions: &[Session], count: usize) {
    everybody_speaks_slowly(sessions, count, Duration::ZERO).await;
}

/// The same, each with so much time between two messages. What is said is read one
/// listener after another, so it must not be more than a session keeps.
///
/// # Panics
/// As [`everybody_speaks`].
pub async fn everybody_speaks_slowly(sessions: &[Session], count: usize, pace: Duration) {
    let mut speakers = tokio::task::JoinSet::new();
    for (member, session) in sessions.iter().cloned().enumerate() {
        let others = sessions.len() - 1;
        speakers.spawn(async move {
            let mut deliveries = Vec::new();
            for n in 0..count {
                sleep(pace).await;
                deliveries.push(session.publish(format!("{member} {n}")).await.expect("it works"));
            }
            for delivery in deliveries {
                let report = within("a report", delivery).await.expect("it works");
                assert_eq!((report.delivered.len(), report.lost.len()), (others, 0));
            }
        });
    }
    for (member, session) in sessions.iter().enumerate() {
        let mut heard: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for message in messages(session, count * (sessions.len() - 1)).await {
            let text = String::from_utf8(message.payload.to_vec()).expect("it works");
            let (speaker, n) = text.split_once(' ').expect("it works");
            heard
                .entry(speaker.parse().expect("it works"))
                .or_default()
                .push(n.parse().expect("it works"));
        }
        for speaker in (0..sessions.len()).filter(|speaker| *speaker != member) {
            assert_eq!(heard[&speaker], (0..count).collect::<Vec<_>>());
        }
    }
    while let Some(speaker) = speakers.join_next().await {
        speaker.expect("it works");
    }
}
