//! An application that says what it likes: a link made by hand, and signatures that
//! are right except where a test spoils them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use rand::rng;
use slim_auth::{Identity as _, SharedSecret};
use slim_proto::{
    AppPayload, BROADCAST, Body, Command, Header, Message, Name, NameId, Publish, SessionId,
    SessionType, Subscription, SubscriptionAck, UNICAST, canonical,
};
use slim_testkit::SECRET;

use crate::conversation::Scene;
use crate::raw::RawStream;

pub(crate) struct Mallory {
    pub(crate) link: RawStream,
    pub(crate) identity: Arc<SharedSecret>,
    pub(crate) name: Name,
    next_id: u32,
}

impl Mallory {
    /// Who knows the secret, and is no member.
    pub(crate) async fn insider(scene: &Scene) -> Self {
        Self::with_secret(scene, SECRET).await
    }

    pub(crate) async fn with_secret(scene: &Scene, secret: &str) -> Self {
        let identity = SharedSecret::new("org/test/mallory", secret, &mut rng()).unwrap();
        Self::with_identity(scene, Arc::new(identity), "mallory").await
    }

    /// A member, who goes on talking meanwhile.
    pub(crate) async fn member(scene: &Scene, member: usize) -> Self {
        let app = scene.name(member).text().unwrap()[2].clone();
        Self::with_identity(scene, Arc::clone(&scene.identities[member]), &app).await
    }

    pub(crate) async fn with_identity(
        scene: &Scene,
        identity: Arc<SharedSecret>,
        app: &str,
    ) -> Self {
        let id = NameId::of_subject(identity.subject());
        let name = format!("org/test/{app}").parse::<Name>().unwrap().with_id(id);
        let link = RawStream::start(scene.cluster.addr()).await;
        Self { link, identity, name, next_id: 1_000_000 }
    }

    /// Subscribes to a name, and waits for the ack.
    pub(crate) async fn subscribe(&mut self, name: &Name) {
        let header = Header::new(self.name.clone(), name.clone(), UNICAST);
        let subscription = Subscription { header, subscription_id: 7 };
        self.link.send_signed(&Message::Subscribe(subscription)).await;
        let ok = SubscriptionAck { subscription_id: 7, result: Ok(()) };
        while self.link.next().await.expect("a link") != Message::SubscriptionAck(ok.clone()) {}
    }

    pub(crate) fn unsigned(&mut self, to: &Name, session_id: SessionId, body: Body) -> Publish {
        self.next_id += 1;
        Publish {
            header: Header::new(self.name.clone(), to.clone(), UNICAST),
            session_type: SessionType::Multicast,
            session_id,
            message_id: self.next_id,
            body,
            metadata: BTreeMap::new(),
        }
    }

    /// To one name, everything signed.
    pub(crate) fn command(&mut self, to: &Name, session: SessionId, command: Command) -> Publish {
        let publish = self.unsigned(to, session, Body::Command(command));
        self.sign(publish)
    }

    /// With our own token, whatever the source says.
    pub(crate) fn sign(&self, publish: Publish) -> Publish {
        self.sign_at(unix(), publish)
    }

    /// With a token of another time.
    pub(crate) fn sign_at(&self, unix: u64, mut publish: Publish) -> Publish {
        publish.header.identity = self.identity.token(unix, &mut rng()).unwrap();
        self.add_signatures(publish)
    }

    /// Under the name of a member and with a token for its subject, which a shared
    /// secret lets everybody make, but with our key.
    pub(crate) fn sign_as(&self, scene: &Scene, member: usize, mut publish: Publish) -> Publish {
        let subject = scene.identities[member].subject();
        let claims = format!("{{\"pubkey\":\"{}\"}}", self.identity.key().public_key().to_base64());
        let (nonce, claims) = (URL_SAFE_NO_PAD.encode([7; 12]), URL_SAFE_NO_PAD.encode(claims));
        let text = format!("{subject}:{}:{nonce}:{claims}", unix());
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let mac = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, text.as_bytes()));
        publish.header.identity = format!("{text}:{mac}");
        publish.header.source = scene.name(member);
        self.add_signatures(publish)
    }

    pub(crate) fn add_signatures(&self, mut publish: Publish) -> Publish {
        let aad = canonical::header_aad(&publish);
        publish.header.e2e_header_sig = Some(self.identity.key().sign(&aad).unwrap().into());
        let input = canonical::payload_signing_input(&aad, &publish);
        let signature = STANDARD.encode(self.identity.key().sign(&input).unwrap());
        publish.metadata.insert(canonical::PAYLOAD_SIGNATURE.to_owned(), signature);
        publish
    }

    /// Sends it, with the link's MAC.
    pub(crate) async fn send(&self, publish: Publish) {
        self.link.send_signed(&Message::Publish(publish)).await;
    }

    /// Sends it to every member by its name, and to the channel.
    pub(crate) async fn send_to_all(&self, scene: &Scene, publish: &Publish) {
        for destination in self.everywhere(scene) {
            let mut copy = publish.clone();
            copy.header.fanout = BROADCAST;
            copy.header.destination = destination;
            self.send(copy).await;
        }
    }

    /// All names by which members can be reached: their own, and the channel's two.
    pub(crate) fn everywhere(&self, scene: &Scene) -> Vec<Name> {
        let channels = channels(scene);
        let members = (0..scene.clients.len()).map(|member| scene.name(member));
        members.chain(channels).collect()
    }

    /// Everything that was sent has been handled by the node: what is sent now comes
    /// back behind it.
    pub(crate) async fn settle(&mut self) {
        let header = Header::new(self.name.clone(), self.name.clone(), UNICAST);
        let subscription = Subscription { header, subscription_id: u64::MAX };
        self.link.send_signed(&Message::Unsubscribe(subscription)).await;
        loop {
            match self.link.next().await.expect("the link is still there") {
                Message::SubscriptionAck(ack) if ack.subscription_id == u64::MAX => return,
                _ => {}
            }
        }
    }

    /// The next message that is a command.
    pub(crate) async fn next_command(&mut self) -> (Publish, Command) {
        loop {
            let message = self.link.next().await.expect("a link");
            if let Message::Publish(publish) = message
                && let Body::Command(command) = publish.body.clone()
            {
                return (publish, command);
            }
        }
    }
}

/// The two names of the channel.
pub(crate) fn channels(scene: &Scene) -> [Name; 2] {
    let channels = scene.channel.without_id().channels(scene.identities[0].subject());
    assert_eq!(channels.data, scene.channel);
    [channels.data, channels.control]
}

pub(crate) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Data of an application.
pub(crate) fn data(text: impl Into<Bytes>) -> AppPayload {
    AppPayload { payload_type: "msg".to_owned(), blob: text.into() }
}
