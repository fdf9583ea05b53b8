//! Peers that forge, flood, dawdle and lie, against a real node and real clients.
//!
//! The victim is a conversation that goes on beside it: three members with MLS who
//! publish all the time. It must not lose a message, and nobody in it may be told of
//! anything; see [`conversation`]. What its latency does is printed by
//! `cargo test --release -p slim-testkit --test hostile -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conversation;
mod floods;
mod frames;
mod http2;
mod links;
mod mallory;
mod names;
/// The node's own tests have it for the same purpose.
#[path = "../../../slim-node/tests/it/common/raw.rs"]
#[allow(dead_code, reason = "the node's own tests use the rest")]
mod raw;
mod replies;
mod report;
mod sessions;

/// Waits for what must happen.
async fn within<F: Future>(future: F) -> F::Output {
    slim_testkit::within("it", future).await
}
