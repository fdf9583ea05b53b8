use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use http_body::Body as _;
use slim_proto::{
    AppPayload, Body, Header, Name, Publish, RoutedFrame, SessionId, SessionType, SubscriptionAck,
};

use super::*;
use crate::mac::tests::shared;

/// A queue, the handle that fills it and the body that empties it.
struct Link {
    outbound: Outbound,
    body: OutboundBody,
    wakes: Arc<Wakes>,
}

/// Counts how often the writer was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, PartialEq)]
enum Polled {
    Data(Bytes),
    /// With this gRPC status.
    Trailers(String),
    End,
    Pending,
}

fn link(limit: usize) -> Link {
    let queue = Queue::new(limit, Budget::unlimited());
    let key = LinkKey::classical("link", &shared());
    Link {
        outbound: Outbound::new(Arc::clone(&queue), Some(key)),
        body: OutboundBody::response(queue),
        wakes: Arc::default(),
    }
}

impl Link {
    fn poll(&mut self) -> Polled {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut cx = Context::from_waker(&waker);
        match Pin::new(&mut self.body).poll_frame(&mut cx) {
            Poll::Pending => Polled::Pending,
            Poll::Ready(None) => Polled::End,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Polled::Data(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    Polled::Trailers(trailers["grpc-status"].to_str().unwrap().to_owned())
                }
            },
            Poll::Ready(Some(Err(never))) => match never {},
        }
    }

    fn data(&mut self) -> Bytes {
        match self.poll() {
            Polled::Data(data) => data,
            other => panic!("no data: {other:?}"),
        }
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

fn publish(number: u32, len: usize) -> slim_proto::Frame {
    let name: Name = "a/b/c".parse().unwrap();
    let message = Message::Publish(Publish {
        header: Header {
            header_mac: Some(vec![0; 32].into()),
            ..Header::new(name.clone(), name, 1)
        },
        session_type: SessionType::Multicast,
        session_id: SessionId(1),
        message_id: number,
        body: Body::Msg(AppPayload { payload_type: String::new(), blob: vec![0xAB; len].into() }),
        metadata: Default::default(),
    });
    slim_proto::Frame::parse(message.encode()).unwrap()
}

fn push(link: &Link, number: u32, len: usize) -> Result<(), PushError> {
    let frame = publish(number, len);
    let outgoing = frame.routed().unwrap().forward().unwrap();
    link.outbound.try_push(&outgoing)
}

fn ack(number: u64) -> Message {
    Message::SubscriptionAck(SubscriptionAck { subscription_id: number, result: Ok(()) })
}

/// The messages in these bytes, by their number; acks count from 1000.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let mut deframer = grpc::Deframer::new();
    deframer.lift_limit();
    deframer.push(Bytes::copy_from_slice(bytes));
    let mut numbers = Vec::new();
    while let Some(message) = deframer.next().unwrap() {
        numbers.push(match Message::decode(message).unwrap() {
            Message::Publish(publish) => publish.message_id.into(),
            Message::SubscriptionAck(ack) => 1000 + ack.subscription_id,
            other => panic!("unexpected {other:?}"),
        });
    }
    assert!(deframer.is_between_messages());
    numbers
}

#[test]
fn small_messages_leave_together_in_order() {
    let mut link = link(DEFAULT_QUEUE_BYTES);
    for number in 0..100 {
        push(&link, number, 500).unwrap();
    }
    let mut all = Vec::new();
    let mut pieces = 0;
    while let Polled::Data(piece) = link.poll() {
        assert!(piece.len() <= PIECE_LEN);
        all.extend_from_slice(&piece);
        pieces += 1;
    }
    assert_eq!(numbers(&all), (0..100).collect::<Vec<_>>());
    assert_eq!(pieces, all.len().div_ceil(PIECE_LEN), "pieces are full");
    assert_eq!(link.outbound.queued_bytes(), 0);
}

#[test]
fn each_message_is_signed_for_its_link() {
    let mut link = link(DEFAULT_QUEUE_BYTES);
    push(&link, 1, 10).unwrap();
    let mut piece = link.data();
    let sent = slim_proto::Frame::parse(piece.split_off(grpc::PREFIX_LEN)).unwrap();
    let key = LinkKey::classical("link", &shared());
    assert!(key.verify(sent.routed().unwrap()));
    let other = LinkKey::classical("another", &shared());
    assert!(!other.verify(sent.routed().unwrap()));
}

#[test]
fn without_a_key_no_mac_is_sent() {
    let queue = Queue::new(DEFAULT_QUEUE_BYTES, Budget::unlimited());
    let mut link = Link {
        outbound: Outbound::new(Arc::clone(&queue), None),
        body: OutboundBody::response(queue),
        wakes: Arc::default(),
    };
    for len in [10, 10_000] {
        push(&link, 1, len).unwrap();
        let mut bytes = link.data().to_vec();
        if len > SMALL_LEN {
            bytes.extend_from_slice(&link.data());
        }
        let sent = slim_proto::Frame::parse(Bytes::from(bytes).split_off(grpc::PREFIX_LEN));
        assert_eq!(sent.unwrap().routed().and_then(RoutedFrame::mac), None);
    }
}

#[test]
fn a_large_message_is_shared_and_stays_whole() {
    let mut links = [link(DEFAULT_QUEUE_BYTES), link(DEFAULT_QUEUE_BYTES)];
    let frame = publish(2, 100_000);
    let outgoing = frame.routed().unwrap().forward().unwrap();
    for link in &mut links {
        push(link, 1, 10).unwrap();
        link.outbound.try_push(&outgoing).unwrap();
        push(link, 3, 10).unwrap();

        // The small one before it leaves with its head.
        let mut all = link.data().to_vec();
        // An ack that comes now has to wait for the tail.
        link.outbound.try_push_control(&ack(1)).unwrap();
        let tail = link.data();
        assert_eq!(tail.as_ptr(), outgoing.tail().as_ptr());
        all.extend_from_slice(&tail);
        all.extend_from_slice(&link.data());
        all.extend_from_slice(&link.data());
        assert_eq!(numbers(&all), [1, 2, 1001, 3]);
        assert_eq!(link.poll(), Polled::Pending);
        assert_eq!(link.outbound.queued_bytes(), 0);
    }
}

#[test]
fn control_messages_go_first() {
    let mut link = link(DEFAULT_QUEUE_BYTES);
    push(&link, 1, 10).unwrap();
    link.outbound.try_push_control(&ack(1)).unwrap();
    link.outbound.try_push_control(&ack(2)).unwrap();
    assert_eq!(numbers(&link.data()), [1001, 1002]);
    assert_eq!(numbers(&link.data()), [1]);
}

#[test]
fn both_lanes_are_bounded() {
    let link = link(2000);
    let pushed = (0..1000).take_while(|n| push(&link, *n, 500).is_ok()).count();
    assert!((3..5).contains(&pushed), "{pushed}");
    assert_eq!(push(&link, 0, 500), Err(PushError::Full));
    assert!(link.outbound.queued_bytes() < 2000 + 1000);

    let acks =
        (0..100_000).take_while(|n| link.outbound.try_push_control(&ack(*n)).is_ok()).count();
    assert!((2000..10_000).contains(&acks), "{acks}");
    let refused = link.outbound.try_push_control(&ack(0));
    assert_eq!(refused, Err(PushError::Full));
}

#[test]
fn a_message_longer_than_the_limit_passes_alone() {
    let mut link = link(1000);
    push(&link, 1, 100_000).unwrap();
    assert_eq!(push(&link, 2, 1), Err(PushError::Full));
    link.data();
    push(&link, 2, 100_000).unwrap();
}

#[test]
fn the_writer_is_woken_once_and_on_request() {
    let mut link = link(DEFAULT_QUEUE_BYTES);
    link.outbound.wake();
    assert_eq!(link.poll(), Polled::Pending);
    link.outbound.wake();
    assert_eq!(link.wakes(), 0, "there is nothing to send");
    push(&link, 1, 1).unwrap();
    push(&link, 2, 1).unwrap();
    assert_eq!(link.wakes(), 0);
    link.outbound.wake();
    link.outbound.wake();
    assert_eq!(link.wakes(), 1);
}

#[tokio::test]
async fn space_comes_with_reading() {
    let mut link = link(1000);
    link.outbound.space().await;
    push(&link, 1, 1000).unwrap();
    let outbound = link.outbound.clone();
    let waiting = tokio::spawn(async move { outbound.space().await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    link.data();
    waiting.await.unwrap();
}

#[tokio::test]
async fn space_for_control_comes_with_reading() {
    let mut link = link(1000);
    link.outbound.control_space().await;
    while link.outbound.try_push_control(&ack(1)).is_ok() {}
    let outbound = link.outbound.clone();
    let waiting = tokio::spawn(async move { outbound.control_space().await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    link.data();
    waiting.await.unwrap();
    link.outbound.try_push_control(&ack(1)).unwrap();
}

#[tokio::test]
async fn closing_ends_the_wait_for_space() {
    let link = link(1000);
    push(&link, 1, 1000).unwrap();
    link.outbound.try_push_control(&ack(1)).unwrap();
    let outbound = link.outbound.clone();
    let waiting = tokio::spawn(async move { outbound.space().await });
    let outbound = link.outbound.clone();
    let waiting_for_control = tokio::spawn(async move { outbound.control_space().await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished() && !waiting_for_control.is_finished());
    link.outbound.close(CloseReason::Done);
    waiting.await.unwrap();
    waiting_for_control.await.unwrap();
}

#[test]
fn closing_sends_what_is_queued_then_the_status() {
    for (reason, status) in
        [(CloseReason::Done, "0"), (CloseReason::TooSlow, "14"), (CloseReason::Refused, "7")]
    {
        let mut link = link(DEFAULT_QUEUE_BYTES);
        assert_eq!(link.poll(), Polled::Pending);
        push(&link, 1, 10).unwrap();
        link.outbound.close(reason);
        // The first word counts.
        link.outbound.close(CloseReason::Refused);
        assert_eq!(link.wakes(), 1);
        assert_eq!(push(&link, 2, 10), Err(PushError::Closed));
        assert_eq!(link.outbound.try_push_control(&ack(1)), Err(PushError::Closed));
        assert_eq!(numbers(&link.data()), [1]);
        assert!(!link.body.is_end_stream());
        assert_eq!(link.poll(), Polled::Trailers(status.to_owned()));
        assert!(link.body.is_end_stream());
        assert_eq!(link.poll(), Polled::End);
    }
}

#[test]
fn the_body_of_a_request_ends_without_a_status() {
    let queue = Queue::new(1000, Budget::unlimited());
    let mut link = Link {
        outbound: Outbound::new(Arc::clone(&queue), None),
        body: OutboundBody::request(queue),
        wakes: Arc::default(),
    };
    link.outbound.close(CloseReason::Done);
    assert_eq!(link.poll(), Polled::End);
}

#[test]
fn shedding_drops_what_is_queued_but_no_half_message() {
    let mut link = link(DEFAULT_QUEUE_BYTES);
    push(&link, 1, 100_000).unwrap();
    let mut all = link.data().to_vec();
    push(&link, 2, 10).unwrap();
    push(&link, 3, 10_000).unwrap();
    push(&link, 4, 10).unwrap();
    let queued = link.outbound.queued_bytes();
    let shed = link.outbound.shed(CloseReason::TooSlow);
    assert_eq!(shed, Shed { frames: 3, bytes: queued });
    assert_eq!(link.outbound.queued_bytes(), 0);
    assert_eq!(link.outbound.shed(CloseReason::TooSlow), Shed::default());
    // The message that has begun is finished.
    all.extend_from_slice(&link.data());
    assert_eq!(numbers(&all), [1]);
    assert_eq!(link.poll(), Polled::Trailers("14".to_owned()));
}

#[tokio::test]
async fn a_dropped_body_closes_the_link() {
    let Link { outbound, body, .. } = link(1000);
    let queue = Arc::clone(&outbound.queue);
    let gone = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.body_gone().await }
    });
    tokio::task::yield_now().await;
    assert!(!gone.is_finished() && !outbound.is_closed());
    drop(body);
    gone.await.unwrap();
    assert!(outbound.is_closed());
    assert!(!queue.is_closed_here(), "nobody has asked for it");
}
