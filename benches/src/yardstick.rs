//! What servers that only pass bytes on have to say, so that the same clients can
//! talk to them as to a node.

use bytes::Bytes;
use slim_proto::{LinkNegotiation, Message, SubscriptionAck};

/// The answer of a server that offers no key and takes every name for the same.
/// None for what is to be passed on.
pub fn answer(message: &Message) -> Option<Message> {
    match message {
        Message::Link(peer) => Some(Message::Link(LinkNegotiation {
            is_reply: true,
            ecdh_public_key: Bytes::new(),
            kem_payload: None,
            ..peer.clone()
        })),
        Message::Subscribe(subscription) => Some(Message::SubscriptionAck(SubscriptionAck {
            subscription_id: subscription.subscription_id,
            result: Ok(()),
        })),
        _ => None,
    }
}

/// Whether these bytes are a publish: the only message that begins with this field.
pub fn is_publish(bytes: &[u8]) -> bool {
    bytes.first() == Some(&(3 << 3 | 2))
}
