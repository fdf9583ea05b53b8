//! The key of a link and the header MAC: HMAC-SHA-256 over values of the header.

use std::sync::{Arc, Mutex, PoisonError};

use ring::{hkdf, hmac};
use slim_proto::{RoutedFrame, canonical};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Signs and verifies the headers of one link, both directions alike.
///
/// Keeps the state of the hash after everything that is the same for each message
/// of the link. A clone is a pointer: what is handed from one task to another, and
/// kept in it, stays small.
#[derive(Clone)]
pub(crate) struct LinkKey(Arc<Keyed>);

struct Keyed {
    primed: hmac::Context,
    signed: Mutex<Signed>,
}

/// What was signed last, and its MAC.
///
/// A MAC covers who sends to whom with which token, and neither payload nor number:
/// what a sender says to one name has one MAC for as long as it uses the same token,
/// and comparing is thirty times cheaper than hashing.
#[derive(Default)]
struct Signed {
    body: Vec<u8>,
    /// Of `body`; none before the first.
    mac: Option<[u8; MAC_LEN]>,
}

/// Bytes of a body above which it is not kept: a node has many links.
const MAX_KEPT_BODY: usize = 4096;

const MAC_LEN: usize = 32;

impl LinkKey {
    /// From the X25519 secret alone.
    pub(crate) fn classical(link_id: &str, shared: &[u8; 32]) -> Self {
        Self::derive(link_id, shared, b"SLIM-DP-inter-node-hmac-v1")
    }

    /// From the X25519 and the ML-KEM secret.
    pub(crate) fn hybrid(link_id: &str, shared: &[u8; 32], kem_shared: &[u8; 32]) -> Self {
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(shared);
        both[32..].copy_from_slice(kem_shared);
        Self::derive(link_id, &*both, b"SLIM-DP-inter-node-hmac-v1-pq")
    }

    /// RFC 5869 with SHA-256, the link's id as salt.
    fn derive(link_id: &str, secret: &[u8], info: &[u8]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, link_id.as_bytes());
        let key = salt
            .extract(secret)
            .expand(&[info], hmac::HMAC_SHA256)
            .expect("one block is never too long")
            .into();
        Self::new(link_id, key)
    }

    fn new(link_id: &str, key: hmac::Key) -> Self {
        let mut primed = hmac::Context::with_key(&key);
        primed.update(&canonical::mac_prefix(link_id));
        Self(Arc::new(Keyed { primed, signed: Mutex::default() }))
    }

    fn compute(&self, body: &[u8]) -> [u8; MAC_LEN] {
        let mut context = self.0.primed.clone();
        context.update(body);
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// The MAC over the link's id and `body`, which is
    /// [`Outgoing::mac_body`](slim_proto::Outgoing::mac_body).
    pub(crate) fn sign(&self, body: &[u8]) -> [u8; MAC_LEN] {
        let lock = || self.0.signed.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let signed = lock();
            if let Some(mac) = signed.mac.filter(|_| signed.body == body) {
                return mac;
            }
        }
        // Without the lock: others that send to the same link need not wait for it.
        let mac = self.compute(body);
        if body.len() <= MAX_KEPT_BODY {
            let mut signed = lock();
            signed.body.clear();
            signed.body.extend_from_slice(body);
            signed.mac = Some(mac);
        }
        mac
    }

    /// Whether the frame carries the MAC of this link, in constant time.
    pub(crate) fn verify(&self, frame: &RoutedFrame) -> bool {
        let Some(mac) = frame.mac() else {
            return false;
        };
        let mut body = Vec::new();
        frame.put_mac_body(&mut body);
        self.compute(&body).ct_eq(mac).into()
    }
}

/// Shows nothing.
impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use slim_proto::{Frame, Header, Message, Name, NameId, Subscription};

    use super::*;

    const LINK_ID: &str = "79b83a99-0ac4-43b2-ba0e-284b322db221";

    pub(crate) fn shared() -> [u8; 32] {
        let text = "9663aa1da97e848a914a436d04163dfbb89178f107f1b5b77ed3854203382854";
        hex::decode(text).unwrap().try_into().unwrap()
    }

    fn header() -> Header {
        let alice: Name = "acme/demo/alice".parse().unwrap();
        Header {
            identity: "tok".to_owned(),
            incoming_conn: Some(1),
            ..Header::new(
                alice.with_id(NameId(0xee23cd86c165f5493bcdcd4cde967fbd)),
                "acme/demo/bob".parse().unwrap(),
                1,
            )
        }
    }

    fn frame(header: Header) -> Frame {
        let subscription_id = 1;
        Frame::parse(Message::Subscribe(Subscription { header, subscription_id }).encode()).unwrap()
    }

    fn check_key(key: &LinkKey, expected: &str) {
        // The key does not come out, so it is known by what it signs.
        let expected = hmac::Key::new(hmac::HMAC_SHA256, &hex::decode(expected).unwrap());
        let preimage = canonical::mac_preimage(LINK_ID, &header());
        let mac = hmac::sign(&expected, &preimage);
        let mut body = Vec::new();
        frame(header()).routed().unwrap().put_mac_body(&mut body);
        assert_eq!(key.sign(&body), mac.as_ref());
    }

    #[test]
    fn keys_are_the_known_ones() {
        check_key(
            &LinkKey::classical(LINK_ID, &shared()),
            "697a5dd17455aaec7c7d1e086f7989e01febecb3d6c95d8f1b5c0e46c5be29ba",
        );
        check_key(
            &LinkKey::hybrid(LINK_ID, &shared(), &[0; 32]),
            "c63922d7c8b2e439ae5210f3e5afeea77b938a5e00758671b5f3c3a72ba4e08a",
        );
    }

    fn check_mac(header: Header, expected: &str) {
        let key = LinkKey::classical(LINK_ID, &shared());
        let mac = hex::decode(expected).unwrap();
        let signed = frame(Header { header_mac: Some(mac.clone().into()), ..header });
        let signed = signed.routed().unwrap();
        assert!(key.verify(signed));

        let mut body = Vec::new();
        signed.put_mac_body(&mut body);
        assert_eq!(key.sign(&body)[..], mac);
    }

    #[test]
    fn macs_are_the_known_ones() {
        check_mac(header(), "1197c2c526db3099b324fb55facf734f9cbd9f4230816f7b0a25f708680dac44");
        let Header { source, destination, .. } = header();
        let without_id =
            Name::from_parts(destination.components(), None, destination.text().cloned());
        check_mac(
            Header {
                source: source.without_text(),
                destination: without_id.unwrap(),
                recv_from: Some(9),
                forward_to: Some(10),
                error: Some(false),
                ..header()
            },
            "260edbde9cf5d6ef96651d90f9c33990b69db2293e2a25e20eb131448eed5a4c",
        );
    }

    #[test]
    fn a_mac_is_of_one_link_and_one_header() {
        let key = LinkKey::classical(LINK_ID, &shared());
        let mut body = Vec::new();
        frame(header()).routed().unwrap().put_mac_body(&mut body);
        let mac = Bytes::copy_from_slice(&key.sign(&body));
        let verify = |key: &LinkKey, header| key.verify(frame(header).routed().unwrap());
        let signed = || Header { header_mac: Some(mac.clone()), ..header() };
        assert!(verify(&key, signed()));

        assert!(!verify(&LinkKey::classical("another link", &shared()), signed()));
        assert!(!verify(&LinkKey::classical(LINK_ID, &[7; 32]), signed()));
        assert!(!verify(&key, Header { ttl: 7, ..signed() }));
        assert!(!verify(&key, Header { identity: "other".to_owned(), ..signed() }));
        assert!(!verify(&key, header()));
        for len in [0, 1, 31] {
            assert!(!verify(&key, Header { header_mac: Some(mac.slice(..len)), ..header() }));
        }
        let longer = [&mac[..], &[0]].concat();
        assert!(!verify(&key, Header { header_mac: Some(longer.into()), ..header() }));
    }

    #[test]
    fn what_was_signed_before_makes_no_difference() {
        let key = LinkKey::classical(LINK_ID, &shared());
        let long = [7; MAX_KEPT_BODY + 1];
        for body in [&b"a"[..], b"a", b"b", b"a", &long, &long[1..], &long, b"a", b"", b""] {
            assert_eq!(key.sign(body), key.compute(body));
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", LinkKey::classical(LINK_ID, &shared())), "LinkKey");
    }
}
