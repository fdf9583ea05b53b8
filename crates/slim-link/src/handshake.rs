//! The negotiation of a link and the key that comes out of it. Pure: randomness
//! comes in, messages come out.
//!
//! The dialler sends its ephemeral X25519 key, the acceptor answers with its own;
//! both derive one key for both directions. A dialler may add an ML-KEM-768 key,
//! and the acceptor then mixes a post-quantum secret in. Nothing here proves who
//! the peer is: that is the business of the transport and of the applications'
//! identities. It proves that later messages come from whoever negotiated.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ml_kem::MlKem768;
use ring::rand::{SecureRandom, SystemRandom};
use slim_proto::{ConnectionType, LinkNegotiation, Message, SLIM_VERSION};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::Principal;
use crate::mac::LinkKey;

/// Longest accepted link id, node id, deployment name and version, in bytes. Each
/// MAC of a link hashes its id, so its length must not be the peer's choice.
pub const MAX_ID_LEN: usize = 256;

/// Length of an ML-KEM-768 encapsulation key.
const KEM_KEY_LEN: usize = 1184;

/// The secrets of one negotiation.
pub(crate) struct Secrets {
    ecdh: StaticSecret,
    /// What ML-KEM encapsulates; acceptor only.
    kem: Zeroizing<[u8; 32]>,
}

impl Secrets {
    pub(crate) fn generate() -> Self {
        let random = SystemRandom::new();
        let draw = || {
            let mut bytes = Zeroizing::new([0; 32]);
            random.fill(&mut *bytes).expect("the operating system has random numbers");
            bytes
        };
        Self::new(draw(), draw())
    }

    pub(crate) fn new(ecdh: Zeroizing<[u8; 32]>, kem: Zeroizing<[u8; 32]>) -> Self {
        Self { ecdh: StaticSecret::from(*ecdh), kem }
    }

    fn public(&self) -> Bytes {
        Bytes::copy_from_slice(PublicKey::from(&self.ecdh).as_bytes())
    }

    /// The secret shared with the owner of this key, unless the key is none.
    fn agree(&self, peer: &[u8]) -> Option<x25519_dalek::SharedSecret> {
        let peer: [u8; 32] = peer.try_into().ok()?;
        let shared = self.ecdh.diffie_hellman(&PublicKey::from(peer));
        // RFC 7748 §6.1: all zero if the peer's key is a point of small order.
        shared.was_contributory().then_some(shared)
    }
}

/// What comes out of a negotiation.
#[derive(Debug)]
pub(crate) struct Negotiated {
    /// What the peer said.
    pub(crate) peer: LinkNegotiation,
    /// None only where no MAC is required.
    pub(crate) key: Option<LinkKey>,
}

/// Whether a node may open a peer link, which is trusted with all names. Default: none
/// may.
#[derive(Clone, Default)]
pub struct PeerAdmission(Option<Arc<Admit>>);

type Admit = dyn Fn(&LinkNegotiation, &[Principal]) -> Result<(), String> + Send + Sync;

impl PeerAdmission {
    /// Asks this, each time, with what the dialler says and whom the transport has
    /// verified. What it says against a peer, the peer is told.
    pub fn new(
        admit: impl Fn(&LinkNegotiation, &[Principal]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(admit)))
    }

    fn check(
        &self,
        peer: &LinkNegotiation,
        principals: &[Principal],
    ) -> Result<(), NegotiationError> {
        match &self.0 {
            Some(admit) => admit(peer, principals),
            None => Err("this node has no peers".to_owned()),
        }
        .map_err(NegotiationError::PeerRefused)
    }
}

impl fmt::Debug for PeerAdmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "PeerAdmission(asks)" } else { "PeerAdmission(none)" })
    }
}

/// What an acceptor says of itself, and asks for.
pub(crate) struct Acceptor<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) deployment_name: &'a str,
    pub(crate) require_mac: bool,
    pub(crate) peers: &'a PeerAdmission,
    /// Whom the transport has verified at the other end.
    pub(crate) principals: &'a [Principal],
}

/// The request that a dialler sends first.
pub(crate) fn request(
    link_id: &str,
    node_id: &str,
    deployment_name: &str,
    connection_type: ConnectionType,
    secrets: &Secrets,
) -> LinkNegotiation {
    LinkNegotiation {
        link_id: link_id.to_owned(),
        slim_version: SLIM_VERSION.to_owned(),
        is_reply: false,
        ecdh_public_key: secrets.public(),
        connection_type,
        node_id: node_id.to_owned(),
        deployment_name: deployment_name.to_owned(),
        kem_payload: None,
    }
}

/// What an acceptor makes of the first message, and its reply.
pub(crate) fn accept(
    first: Message,
    own: &Acceptor<'_>,
    secrets: &Secrets,
) -> Result<(LinkNegotiation, Negotiated), NegotiationError> {
    let require_mac = own.require_mac;
    let peer = negotiation(first, false)?;
    if require_mac && peer.ecdh_public_key.len() != 32 {
        return Err(NegotiationError::KeyLength(peer.ecdh_public_key.len()));
    }
    if peer.link_id.is_empty() {
        return Err(NegotiationError::NoLinkId);
    }
    if peer.connection_type == ConnectionType::Peer {
        own.peers.check(&peer, own.principals)?;
    }
    let (key, kem_payload) = match acceptor_key(&peer, secrets) {
        Some((key, ciphertext)) => (Some(key), ciphertext),
        None if require_mac => return Err(NegotiationError::KeyExchange),
        None => (None, None),
    };
    let reply = LinkNegotiation {
        link_id: peer.link_id.clone(),
        slim_version: SLIM_VERSION.to_owned(),
        is_reply: true,
        ecdh_public_key: key.as_ref().map(|_| secrets.public()).unwrap_or_default(),
        // Some diallers adopt what they read here.
        connection_type: peer.connection_type,
        node_id: own.node_id.to_owned(),
        deployment_name: own.deployment_name.to_owned(),
        kem_payload,
    };
    Ok((reply, Negotiated { peer, key }))
}

fn acceptor_key(peer: &LinkNegotiation, secrets: &Secrets) -> Option<(LinkKey, Option<Bytes>)> {
    let shared = secrets.agree(&peer.ecdh_public_key)?;
    let classical = shared.as_bytes();
    match peer.kem_payload.as_deref() {
        Some(kem_key) if kem_key.len() == KEM_KEY_LEN => {
            // FIPS 203 §7.2 checks the key; it may be none.
            let kem_key =
                ml_kem::EncapsulationKey::<MlKem768>::new(kem_key.try_into().ok()?).ok()?;
            let (ciphertext, kem_shared) =
                kem_key.encapsulate_deterministic((&*secrets.kem).into());
            let key = LinkKey::hybrid(&peer.link_id, classical, kem_shared.as_ref());
            Some((key, Some(Bytes::copy_from_slice(&ciphertext))))
        }
        // Any other length is ignored, as everywhere.
        _ => Some((LinkKey::classical(&peer.link_id, classical), None)),
    }
}

/// What a dialler makes of the answer to its [`request`].
pub(crate) fn finish(
    answer: Message,
    (link_id, connection_type): (&str, ConnectionType),
    require_mac: bool,
    secrets: &Secrets,
) -> Result<Negotiated, NegotiationError> {
    // The link is what was asked for, whatever the answer says: a node could otherwise have
    // an application take it for a peer, whose MACs nobody reads.
    let peer = LinkNegotiation { connection_type, ..negotiation(answer, true)? };
    if require_mac && peer.ecdh_public_key.len() != 32 {
        return Err(NegotiationError::KeyLength(peer.ecdh_public_key.len()));
    }
    if peer.link_id != link_id {
        return Err(NegotiationError::OtherLinkId);
    }
    let key = secrets
        .agree(&peer.ecdh_public_key)
        .map(|shared| LinkKey::classical(link_id, shared.as_bytes()));
    if require_mac && key.is_none() {
        return Err(NegotiationError::KeyExchange);
    }
    Ok(Negotiated { peer, key })
}

/// The checks that both sides make.
fn negotiation(message: Message, is_reply: bool) -> Result<LinkNegotiation, NegotiationError> {
    let Message::Link(negotiation) = message else {
        return Err(NegotiationError::NotANegotiation);
    };
    if negotiation.is_reply != is_reply {
        return Err(NegotiationError::Direction);
    }
    for (field, text) in [
        ("link_id", &negotiation.link_id),
        ("slim_version", &negotiation.slim_version),
        ("node_id", &negotiation.node_id),
        ("deployment_name", &negotiation.deployment_name),
    ] {
        if text.len() > MAX_ID_LEN {
            return Err(NegotiationError::TooLong(field, text.len()));
        }
    }
    if semver::Version::parse(&negotiation.slim_version).is_err() {
        return Err(NegotiationError::Version(negotiation.slim_version));
    }
    Ok(negotiation)
}

/// What is wrong with the peer's negotiation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The peer ended the stream instead: it does not accept ours.
    #[error("the peer ended the stream")]
    Ended,
    /// The peer says why it does not accept ours.
    #[error("permission denied by the peer: {0:?}")]
    Denied(String),
    /// The stream broke, or carried something that is no message.
    #[error("{0}")]
    Stream(String),
    /// The first message is another one.
    #[error("the first message is no negotiation")]
    NotANegotiation,
    /// A reply where a request belongs, or the other way round.
    #[error("request and reply mixed up")]
    Direction,
    /// The version, as it came.
    #[error("{0:?} is not a semantic version")]
    Version(String),
    /// Length of the public key in bytes.
    #[error("public key of {0} bytes, expected 32")]
    KeyLength(usize),
    /// The link has no id.
    #[error("empty link id")]
    NoLinkId,
    /// The reply is about another link.
    #[error("reply to another link id")]
    OtherLinkId,
    /// A field that is longer than [`MAX_ID_LEN`], and its length.
    #[error("{0} of {1} bytes is too long")]
    TooLong(&'static str, usize),
    /// The peer's keys are not usable.
    #[error("key exchange failed")]
    KeyExchange,
    /// Why this node is no peer here.
    #[error("peer link refused: {0}")]
    PeerRefused(String),
}

#[cfg(test)]
mod tests;
