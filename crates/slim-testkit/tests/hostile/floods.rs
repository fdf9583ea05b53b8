//! As much as goes down a wire, of what costs its sender little. Each is bounded, or
//! ends its connection; beside it the conversation goes on.

use std::sync::atomic::Ordering;

use slim_proto::{BROADCAST, Body, Message};

use crate::conversation::{Scene, beside_a_conversation};
use crate::http2::{
    CONTINUATION, DATA, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, Http2, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, headers,
};
use crate::mallory::{Mallory, data};
use crate::within;

/// Frames that are written at once.
const BATCH: usize = 1000;

/// The same frames for as long as the conversation takes for a few rounds; answers are
/// read.
pub(crate) async fn repeat(scene: &Scene, prologue: &[u8], frames: &[u8]) {
    let mut connection = Http2::open(scene.cluster.addr()).await;
    connection.write(prologue).await;
    let batch = frames.repeat(BATCH);
    while connection.write(&batch).await {}
}

pub(crate) async fn pings(scene: &Scene) {
    repeat(scene, &[], &frame(PING, 0, 0, &[7; 8])).await;
}

pub(crate) async fn settings(scene: &Scene) {
    repeat(scene, &[], &frame(SETTINGS, 0, 0, &[])).await;
}

pub(crate) async fn window_updates(scene: &Scene) {
    // Nothing, which is an error, or something: a byte each.
    repeat(scene, &[], &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
}

pub(crate) async fn empty_data(scene: &Scene) {
    let open = frame(HEADERS, END_HEADERS, 1, &headers());
    repeat(scene, &open, &frame(DATA, 0, 1, &[])).await;
}

/// Opens streams and resets them, one connection after the other.
pub(crate) async fn resets(scene: &Scene) {
    loop {
        reset_once(scene).await;
    }
}

async fn reset_once(scene: &Scene) -> Option<u32> {
    let mut connection = Http2::open(scene.cluster.addr()).await;
    let mut stream = 1;
    loop {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            batch.extend(frame(HEADERS, END_HEADERS, stream, &headers()));
            batch.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            stream += 2;
        }
        if !connection.write(&batch).await {
            return connection.end().await;
        }
    }
}

/// The same message for ever: none of them ends the link.
async fn flood_link(mallory: &Mallory, message: &[u8]) {
    while !mallory.link.is_closed() {
        mallory.link.send_bytes(message).await;
    }
    panic!("the link is gone");
}

/// Frames that are no messages.
pub(crate) async fn garbage(scene: &Scene) {
    let mallory = Mallory::insider(scene).await;
    flood_link(&mallory, b"garbage").await;
}

/// Publishes with a MAC that is wrong.
pub(crate) async fn forged_macs(scene: &Scene) {
    let mut mallory = Mallory::insider(scene).await;
    let publish = mallory.unsigned(&scene.channel, scene.session, Body::Msg(data("flood")));
    let mut header = publish.header.clone();
    mallory.link.sign(&mut header);
    header.identity.push('x');
    let message = Message::Publish(slim_proto::Publish { header, ..publish }).encode();
    flood_link(&mallory, &message).await;
}

/// Messages for a name that nobody has.
pub(crate) async fn to_nobody(scene: &Scene) {
    let mut mallory = Mallory::insider(scene).await;
    let nobody = "org/test/nobody".parse().unwrap();
    let publish = mallory.unsigned(&nobody, scene.session, Body::Msg(data("flood")));
    let message = mallory.link.signed(&Message::Publish(publish)).encode();
    flood_link(&mallory, &message).await;
}

/// Data for the conversation's channel, as a member's that it is not: each member has to
/// look at all of it.
pub(crate) async fn to_the_channel(scene: &Scene) {
    let mut mallory = Mallory::insider(scene).await;
    let publish = mallory.unsigned(&scene.channel, scene.session, Body::Msg(data("flood")));
    let mut publish = mallory.sign(publish);
    publish.header.fanout = BROADCAST;
    let message = mallory.link.signed(&Message::Publish(publish)).encode();
    flood_link(&mallory, &message).await;
}

/// The flood goes on for as long as the conversation takes for a few rounds.
async fn check(flood: impl AsyncFn(&Scene)) {
    beside_a_conversation(async |scene| scene.meanwhile(flood(scene)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings() {
    check(pings).await;
}

/// Who asks and does not listen is not answered into memory: the node reads no more.
#[tokio::test(flavor = "multi_thread")]
async fn pings_whose_answers_are_not_read() {
    beside_a_conversation(async |scene| {
        let mut tcp = tokio::net::TcpStream::connect(scene.cluster.addr()).await.unwrap();
        let flood = async {
            use tokio::io::AsyncWriteExt as _;
            tcp.write_all(crate::http2::PREFACE).await.unwrap();
            tcp.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            let batch = frame(PING, 0, 0, &[7; 8]).repeat(BATCH);
            while tcp.write_all(&batch).await.is_ok() {}
        };
        scene.meanwhile(flood).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_settings() {
    check(settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_window_updates() {
    check(window_updates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_data() {
    check(empty_data).await;
}

/// Also known as rapid reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets() {
    beside_a_conversation(async |scene| {
        let error = within(reset_once(scene)).await;
        assert!(matches!(error, Some(ENHANCE_YOUR_CALM) | None), "{error:?}");
        scene.meanwhile(resets(scene)).await;
    })
    .await;
}

/// Headers without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_continuations() {
    beside_a_conversation(async |scene| {
        let mut connection = Http2::open(scene.cluster.addr()).await;
        connection.write(&frame(HEADERS, 0, 1, &headers())).await;
        let header = [&b"\0\x04flood\x7f"[..2], b"pest", b"\x40", &[b'x'; 64]].concat();
        let more = frame(CONTINUATION, 0, 1, &header).repeat(BATCH);
        let flood = async { while connection.write(&more).await {} };
        within(flood).await;
        connection.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_garbage() {
    beside_a_conversation(async |scene| {
        scene.meanwhile(garbage(scene)).await;
        scene.cluster.until("dropping", |metrics| metrics.dropped.malformed > 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_forged_macs() {
    beside_a_conversation(async |scene| {
        scene.meanwhile(forged_macs(scene)).await;
        scene.cluster.until("dropping", |metrics| metrics.dropped.bad_mac > 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_for_nobody() {
    beside_a_conversation(async |scene| {
        scene.meanwhile(to_nobody(scene)).await;
        scene.cluster.until("dropping", |metrics| metrics.dropped.no_subscriber > 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_for_the_channel() {
    check(to_the_channel).await;
}

/// What the node answers is what it was asked: pings are read and answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_pings_are_answered() {
    beside_a_conversation(async |scene| {
        let mut connection = Http2::open(scene.cluster.addr()).await;
        connection.write(&frame(PING, 0, 0, &[7; 8])).await;
        let answered = async {
            while connection.frames_read.load(Ordering::Relaxed) < 3 {
                tokio::task::yield_now().await;
            }
        };
        within(answered).await;
    })
    .await;
}
