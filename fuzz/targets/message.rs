//! Any bytes as a message, read in the two ways that there are.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_proto::{Frame, Header, Message, canonical, pb};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let message = Message::decode(bytes.clone());
    let frame = Frame::parse(bytes.clone());

    if let Ok(message) = &message {
        let encoded = message.encode();
        assert_eq!(encoded.len(), message.encoded_len());
        assert_eq!(Message::decode(encoded.clone()).as_ref(), Ok(message));
        // What we write ourselves, a node passes on.
        let frame = Frame::parse(encoded.clone()).expect("canonical bytes are a frame");
        assert_eq!(frame.bytes(), &encoded);
        compare(&frame, message);
    }
    if let Ok(frame) = &frame {
        assert_eq!(frame.bytes(), &bytes);
        // Whoever gets it can read it: else it would lose its link.
        pb::Message::decode(bytes).expect("what a node passes on decodes everywhere");
        if let Ok(message) = &message {
            compare(frame, message);
        }
    }
});

/// Both readings see the same header and metadata, and what a MAC covers is the same.
fn compare(frame: &Frame, message: &Message) {
    let (header, subscription_id) = match message {
        Message::Link(_) => return assert!(matches!(frame, Frame::Link(_))),
        Message::SubscriptionAck(_) => return assert!(matches!(frame, Frame::SubscriptionAck(_))),
        Message::Subscribe(content) => {
            assert!(matches!(frame, Frame::Subscribe(_)));
            (&content.header, content.subscription_id)
        }
        Message::Unsubscribe(content) => {
            assert!(matches!(frame, Frame::Unsubscribe(_)));
            (&content.header, content.subscription_id)
        }
        Message::Publish(publish) => {
            assert!(matches!(frame, Frame::Publish(_)));
            (&publish.header, 0)
        }
    };
    let frame = frame.routed().expect("it has a header");
    let Header { source, destination, fanout, ttl, recv_from, forward_to, header_mac, .. } = header;
    let view = frame.header();
    assert_eq!((view.source, view.destination), (source.route(), destination.route()));
    assert_eq!((view.fanout, view.ttl), (*fanout, *ttl));
    assert_eq!((view.recv_from, view.forward_to), (*recv_from, *forward_to));
    assert_eq!(frame.subscription_id(), subscription_id);
    if let Message::Publish(publish) = message {
        for (key, value) in &publish.metadata {
            assert_eq!(frame.metadata(key), Some(&**value));
        }
    }
    assert_eq!(frame.mac(), header_mac.as_deref().filter(|mac| !mac.is_empty()));

    let mut covered = canonical::mac_prefix("link");
    frame.put_mac_body(&mut covered);
    assert_eq!(covered, canonical::mac_preimage("link", header));
}
