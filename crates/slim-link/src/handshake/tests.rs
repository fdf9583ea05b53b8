use ml_kem::{Decapsulate, KeyExport};
use slim_proto::{Header, Subscription, SubscriptionAck};

use super::*;
use crate::mac::tests::shared;

const ASKED: (&str, ConnectionType) = (LINK_ID, ConnectionType::Edge);
const LINK_ID: &str = "79b83a99-0ac4-43b2-ba0e-284b322db221";

fn secrets(first: u8) -> Secrets {
    let bytes = std::array::from_fn(|i| first + i as u8);
    Secrets::new(Zeroizing::new(bytes), Zeroizing::new([3; 32]))
}

fn dialler() -> Secrets {
    secrets(0)
}

fn acceptor() -> Secrets {
    secrets(0x20)
}

fn asked() -> LinkNegotiation {
    request(LINK_ID, "node-a", "group", ConnectionType::Edge, &dialler())
}

fn own(require_mac: bool, peers: &PeerAdmission) -> Acceptor<'_> {
    Acceptor { node_id: "node-b", deployment_name: "group", require_mac, peers, principals: &[] }
}

fn accepted(
    spoil: impl FnOnce(&mut LinkNegotiation),
    require_mac: bool,
) -> Result<(LinkNegotiation, Negotiated), NegotiationError> {
    let mut request = asked();
    spoil(&mut request);
    accept(Message::Link(request), &own(require_mac, &PeerAdmission::default()), &acceptor())
}

fn finished(
    spoil: impl FnOnce(&mut LinkNegotiation),
    require_mac: bool,
) -> Result<Negotiated, NegotiationError> {
    let (mut reply, _) = accepted(|_| {}, true).unwrap();
    spoil(&mut reply);
    finish(Message::Link(reply), ASKED, require_mac, &dialler())
}

fn same_key(a: &Option<LinkKey>, b: &Option<LinkKey>) -> bool {
    a.as_ref().unwrap().sign(b"x") == b.as_ref().unwrap().sign(b"x")
}

#[test]
fn the_public_keys_are_the_known_ones() {
    assert_eq!(
        hex::encode(dialler().public()),
        "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"
    );
    assert_eq!(
        hex::encode(acceptor().public()),
        "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
    );
}

#[test]
fn both_sides_derive_the_known_key() {
    let (reply, acceptor_side) = accepted(|_| {}, true).unwrap();
    let dialler_side = finish(Message::Link(reply), ASKED, true, &dialler()).unwrap();
    assert!(same_key(&acceptor_side.key, &dialler_side.key));
    let known = Some(LinkKey::classical(LINK_ID, &shared()));
    assert!(same_key(&acceptor_side.key, &known));
    assert_eq!(acceptor_side.peer.node_id, "node-a");
    assert_eq!(dialler_side.peer.node_id, "node-b");
}

#[test]
fn the_request_is_plain_and_the_reply_echoes() {
    let request = asked();
    assert!(!request.is_reply && request.kem_payload.is_none());
    assert_eq!(request.slim_version, "3.4.6");
    for connection_type in [ConnectionType::Edge, ConnectionType::Remote] {
        let (reply, _) = accepted(|r| r.connection_type = connection_type, true).unwrap();
        assert_eq!(reply.connection_type, connection_type);
        assert_eq!(reply.link_id, LINK_ID);
        assert!(reply.is_reply);
        assert_eq!(reply.node_id, "node-b");
    }
}

#[test]
fn the_first_message_has_to_be_a_negotiation() {
    let name: slim_proto::Name = "a/b/c".parse().unwrap();
    for other in [
        Message::Subscribe(Subscription {
            header: Header::new(name.clone(), name, 1),
            subscription_id: 1,
        }),
        Message::SubscriptionAck(SubscriptionAck { subscription_id: 1, result: Ok(()) }),
    ] {
        let error = NegotiationError::NotANegotiation;
        assert_eq!(
            accept(other.clone(), &own(false, &PeerAdmission::default()), &acceptor()).unwrap_err(),
            error
        );
        assert_eq!(finish(other, ASKED, false, &dialler()).unwrap_err(), error);
    }
}

#[test]
fn an_answer_does_not_make_a_peer_of_whoever_gave_it() {
    let negotiated = finished(|r| r.connection_type = ConnectionType::Peer, true).unwrap();
    assert_eq!(negotiated.peer.connection_type, ConnectionType::Edge);
}

#[test]
fn what_an_acceptor_refuses() {
    let check = |spoil: fn(&mut LinkNegotiation), error: NegotiationError| {
        assert_eq!(accepted(spoil, true).unwrap_err(), error);
    };
    check(|r| r.is_reply = true, NegotiationError::Direction);
    for version in ["", "abc", "v3.4.6", "3.4"] {
        let error = NegotiationError::Version(version.to_owned());
        assert_eq!(accepted(|r| r.slim_version = version.to_owned(), true).unwrap_err(), error);
    }
    check(|r| r.ecdh_public_key = Bytes::new(), NegotiationError::KeyLength(0));
    check(|r| r.ecdh_public_key = vec![1; 33].into(), NegotiationError::KeyLength(33));
    check(|r| r.ecdh_public_key = vec![0; 32].into(), NegotiationError::KeyExchange);
    check(|r| r.link_id.clear(), NegotiationError::NoLinkId);
    check(|r| r.link_id = "x".repeat(257), NegotiationError::TooLong("link_id", 257));
    check(|r| r.node_id = "x".repeat(300), NegotiationError::TooLong("node_id", 300));
    check(
        |r| r.connection_type = ConnectionType::Peer,
        NegotiationError::PeerRefused("this node has no peers".to_owned()),
    );
    // A key of the right length, but with a coefficient that is none.
    check(|r| r.kem_payload = Some(vec![0xff; 1184].into()), NegotiationError::KeyExchange);
}

#[test]
fn a_peer_is_admitted_or_told_why_not() {
    let peers = PeerAdmission::new(|peer, _| match peer.node_id.as_str() {
        "node-a" => Ok(()),
        other => Err(format!("{other} is unknown")),
    });
    let mut request = asked();
    request.connection_type = ConnectionType::Peer;
    let check = |request: &LinkNegotiation| {
        accept(Message::Link(request.clone()), &own(true, &peers), &acceptor())
    };
    let (reply, _) = check(&request).unwrap();
    assert_eq!(reply.connection_type, ConnectionType::Peer);
    assert_eq!(
        (request.deployment_name.as_str(), reply.deployment_name.as_str()),
        ("group", "group")
    );
    request.node_id = "mallory".to_owned();
    let refused = NegotiationError::PeerRefused("mallory is unknown".to_owned());
    assert_eq!(check(&request).unwrap_err(), refused);
}

#[test]
fn what_a_dialler_refuses() {
    let check = |spoil: fn(&mut LinkNegotiation), error: NegotiationError| {
        assert_eq!(finished(spoil, true).unwrap_err(), error);
    };
    check(|r| r.is_reply = false, NegotiationError::Direction);
    check(|r| r.slim_version.clear(), NegotiationError::Version(String::new()));
    check(|r| r.ecdh_public_key = Bytes::new(), NegotiationError::KeyLength(0));
    check(|r| r.ecdh_public_key = vec![0; 32].into(), NegotiationError::KeyExchange);
    check(|r| r.link_id.push('x'), NegotiationError::OtherLinkId);
}

#[test]
fn any_semantic_version_will_do() {
    for version in ["0.1.0", "3.4.6", "99.0.0-rc.1+build"] {
        accepted(|r| r.slim_version = version.to_owned(), true).unwrap();
    }
}

#[test]
fn without_strictness_a_link_may_have_no_key() {
    for key in [vec![], vec![0; 32], vec![1; 5]] {
        let (reply, negotiated) = accepted(|r| r.ecdh_public_key = key.into(), false).unwrap();
        assert!(negotiated.key.is_none());
        assert!(reply.ecdh_public_key.is_empty());
        assert!(finish(Message::Link(reply), ASKED, false, &dialler()).unwrap().key.is_none());
    }
    // An invalid ML-KEM key fails the exchange as a whole.
    let (reply, negotiated) =
        accepted(|r| r.kem_payload = Some(vec![0xff; 1184].into()), false).unwrap();
    assert!(negotiated.key.is_none() && reply.ecdh_public_key.is_empty());
    // But a usable key is used.
    assert!(accepted(|_| {}, false).unwrap().1.key.is_some());
}

#[test]
fn a_dialler_may_ask_for_a_hybrid_key() {
    let kem_secret = ml_kem::DecapsulationKey::<MlKem768>::from_seed([9; 64].into());
    let kem_key = Bytes::copy_from_slice(&kem_secret.encapsulation_key().to_bytes());
    assert_eq!(kem_key.len(), 1184);
    let (reply, negotiated) = accepted(|r| r.kem_payload = Some(kem_key), true).unwrap();

    let ciphertext = reply.kem_payload.unwrap();
    assert_eq!(ciphertext.len(), 1088);
    let kem_shared = kem_secret.decapsulate_slice(&ciphertext).unwrap();
    let expected = LinkKey::hybrid(LINK_ID, &shared(), kem_shared.as_ref());
    assert!(same_key(&negotiated.key, &Some(expected)));
}

#[test]
fn a_kem_payload_of_another_length_is_ignored() {
    for len in [0, 1088, 1183, 1185] {
        let (reply, negotiated) =
            accepted(|r| r.kem_payload = Some(vec![1; len].into()), true).unwrap();
        assert_eq!(reply.kem_payload, None);
        assert!(same_key(&negotiated.key, &Some(LinkKey::classical(LINK_ID, &shared()))));
    }
}

#[test]
fn secrets_are_fresh() {
    assert_ne!(Secrets::generate().public(), Secrets::generate().public());
}
