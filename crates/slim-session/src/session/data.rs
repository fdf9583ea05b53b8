//! Data: from the application to the channel and back.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::RngExt;
use slim_proto::{
    AppPayload, BROADCAST, Body, MAX_MESSAGE_LEN, Message, Name, NameId, Publish, UNICAST,
    canonical,
};
use tracing::{debug, error};

use super::core::Core;
use super::encryption::EncryptionError;
use crate::api::{Done, Outgoing, PublishError, ReceivedMessage, RequestId, SessionEvent};
use crate::gate::Unbound;
use crate::inbound::{self, Arrival};
use crate::mls::DecryptError;
use crate::outbound::{self, Audience, To, is_direct};
use crate::outbox::Context;
use crate::roster::Entry;

/// Publishes that may wait for room; one more is refused.
const MAX_WAITING: usize = 1024;

/// Data that came before what it needs to be read: our session, or its commit.
/// What comes beyond is dropped and, not being acknowledged, sent again.
const MAX_EARLY: usize = 256;
/// The same bound in bytes.
const MAX_EARLY_BYTES: usize = 8 << 20;

/// What encryption and the link add to a message, at most: the MLS framing with
/// its padding and signature, and the header's MAC.
const OVERHEAD: usize = 512;

/// Who waits for the outcome of what was published before.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(super) request: RequestId,
    /// How many of those still wait for room.
    waiting: usize,
    /// The others are before this.
    mark: u64,
}

/// Data that waits for its session or commit.
#[derive(Debug, Default)]
pub(crate) struct Early {
    frames: VecDeque<Publish>,
    bytes: usize,
}

impl Core {
    // ------------------------------------------------------------ publish

    pub(crate) fn publish(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestId,
        mut message: Outgoing,
    ) {
        message.metadata.retain(|key, _| !canonical::is_reserved(key));
        let checked =
            if self.away { Err(PublishError::Away) } else { self.check_size(cx, &message) };
        if let Err(error) = checked {
            return cx.out.done(request, Done::Published(Err(error)));
        }
        if self.outbound.is_full() || !self.waiting.is_empty() {
            if self.waiting.len() >= MAX_WAITING {
                let error = PublishError::Busy { limit: MAX_WAITING };
                return cx.out.done(request, Done::Published(Err(error)));
            }
            return self.waiting.push_back((request, message));
        }
        self.start(cx, request, message);
    }

    /// Whether the message fits into one of the protocol's, checked before
    /// anything is numbered or sent.
    fn check_size(&mut self, cx: &mut Context<'_>, message: &Outgoing) -> Result<(), PublishError> {
        let len = message.payload.len();
        let to = message.to.clone().map_or(To::All, To::One);
        let empty = Outgoing { payload: Bytes::new(), ..message.clone() };
        let body = |payload: &Outgoing| Body::Msg(payload_of(payload));
        // With the highest id there is, and so all its metadata.
        let mut publish = self.data_envelope(&to, u32::MAX, body(&empty), &empty);
        publish.header.identity = cx.voice.token(cx.now, cx.rng).unwrap_or_default();
        let aad = if self.mls.is_some() { canonical::header_aad(&publish).len() } else { 0 };
        let around = Message::Publish(publish).encoded_len() + aad + OVERHEAD;
        let limit = MAX_MESSAGE_LEN.saturating_sub(around);
        if len > limit { Err(PublishError::TooLarge { len, limit }) } else { Ok(()) }
    }

    fn start(&mut self, cx: &mut Context<'_>, request: RequestId, message: Outgoing) {
        match self.audience(cx, &message) {
            Err(error) => cx.out.done(request, Done::Published(Err(error))),
            Ok(audience) => {
                cx.out.push(crate::api::Output::Accepted(request));
                let (_, actions) = self.outbound.publish(cx.now.at, request, message, audience);
                self.carry_out(cx, actions);
            }
        }
    }

    fn audience(&self, cx: &mut Context<'_>, message: &Outgoing) -> Result<Audience, PublishError> {
        if let Some(to) = &message.to {
            let member = self.roster.find(to).filter(|entry| entry.receives_data && !entry.joining);
            let Some(member) = member else {
                return Err(PublishError::NotMember { name: to.clone() });
            };
            // To the peer of a point-to-point session everything is said in order.
            if !self.is_p2p() {
                let id = cx.rng.random_range(1 << 31..=u32::MAX - 1);
                return Ok(Audience::One { member: member.name.clone(), id });
            }
        }
        let (online, offline): (Vec<&Entry>, Vec<&Entry>) =
            self.roster.receivers().partition(|entry| entry.online);
        if online.is_empty() && offline.is_empty() {
            return Err(PublishError::Alone);
        }
        let names = |entries: Vec<&Entry>| entries.iter().map(|entry| entry.name.clone()).collect();
        Ok(Audience::All { online: names(online), offline: names(offline) })
    }

    /// There may be room for publishes that wait.
    pub(crate) fn retry_waiting(&mut self, cx: &mut Context<'_>) {
        while !self.outbound.is_full()
            && let Some((request, message)) = self.waiting.pop_front()
        {
            for flush in self.flushes.iter_mut().filter(|flush| flush.waiting > 0) {
                flush.waiting -= 1;
                flush.mark = self.outbound.next_key() + 1;
            }
            self.start(cx, request, message);
        }
        let outbound = &self.outbound;
        self.flushes.retain(|flush| {
            let done =
                flush.waiting == 0 && outbound.oldest_open().is_none_or(|key| key >= flush.mark);
            if done {
                cx.out.done(flush.request, Done::Flushed);
            }
            !done
        });
    }

    pub(crate) fn flush(&mut self, cx: &mut Context<'_>, request: RequestId) {
        let (waiting, mark) = (self.waiting.len(), self.outbound.next_key());
        self.flushes.push(Flush { request, waiting, mark });
        self.retry_waiting(cx);
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, actions: Vec<outbound::Action>) {
        let mut silent = Vec::new();
        for action in actions {
            match action {
                outbound::Action::Send { id, to, message } => {
                    self.send_data(cx, &to, id, &message, Body::Msg(payload_of(&message)), None);
                }
                outbound::Action::Silent(name) => silent.push(name),
                outbound::Action::Done { request, report } => {
                    cx.out.done(request, Done::Published(Ok(report)));
                }
            }
        }
        for name in silent {
            self.member_offline(cx, &name);
        }
        self.retry_waiting(cx);
    }

    /// A data message as it is sent, but for the encryption and the identity.
    fn data_envelope(&self, to: &To, id: u32, body: Body, message: &Outgoing) -> Publish {
        let (destination, fanout) = match (to, &self.channels) {
            (To::One(name), _) => (name.clone(), UNICAST),
            (To::All, Some(channels)) => (channels.data.clone(), BROADCAST),
            (To::All, None) => (self.peer(), UNICAST),
        };
        let mut publish = self.envelope(destination, fanout, id, body);
        publish.metadata.clone_from(&message.metadata);
        if is_direct(id) {
            let (key, value) = (canonical::PUBLISH_TO, canonical::TRUE);
            publish.metadata.insert(key.to_owned(), value.to_owned());
        }
        publish
    }

    /// Sends data, encrypted anew each time: the identity first, since it is part
    /// of what the encryption authenticates.
    fn send_data(
        &mut self,
        cx: &mut Context<'_>,
        to: &To,
        id: u32,
        message: &Outgoing,
        body: Body,
        error: Option<bool>,
    ) {
        let mut publish = self.data_envelope(to, id, body, message);
        publish.header.error = error;
        let Some(identity) = cx.voice.token(cx.now, cx.rng) else { return };
        publish.header.identity = identity;
        if let Some(mls) = self.mls.as_mut() {
            let aad = canonical::header_aad(&publish);
            let (Body::Msg(payload) | Body::RtxReply(payload)) = &mut publish.body else { return };
            match mls.encrypt(&aad, &payload.blob) {
                Ok(blob) => payload.blob = blob,
                Err(reason) => return error!(%reason, "data not sent"),
            }
        }
        cx.out.send(Message::Publish(publish));
    }

    // ------------------------------------------------------------ answers to ours

    /// An acknowledgement. Not authenticated, so only a member's counts.
    pub(crate) fn on_ack(&mut self, cx: &mut Context<'_>, source: &Name, id: u32) {
        let Some(entry) = self.roster.get_mut(source) else { return };
        entry.heard(cx.now.at);
        let name = entry.name.clone();
        let actions = self.outbound.ack(cx.now.at, &name, id);
        self.carry_out(cx, actions);
    }

    /// A member misses one of ours.
    pub(crate) fn on_rtx_request(&mut self, cx: &mut Context<'_>, source: &Name, id: u32) {
        let Some(entry) = self.roster.get_mut(source) else { return };
        if self.timers.is_none() {
            return;
        }
        entry.heard(cx.now.at);
        let to = To::One(entry.name.clone());
        match self.outbound.rtx_request(cx.now.at, source, id) {
            Some(message) => {
                let body = Body::RtxReply(payload_of(&message));
                self.send_data(cx, &to, id, &message, body, None);
            }
            None => {
                let (empty, body) = (Outgoing::default(), Body::RtxReply(AppPayload::default()));
                self.send_data(cx, &to, id, &empty, body, Some(true));
            }
        }
    }

    // ------------------------------------------------------------ receive

    /// A `MSG` or `RTX_REPLY`: decrypt, acknowledge, put in order, deliver.
    pub(crate) fn on_data(&mut self, cx: &mut Context<'_>, publish: Publish) {
        // Who closes has passed on what it had; a late copy would be taken for new.
        if self.busy || self.away || !self.is_open() {
            return;
        }
        let source = publish.header.source.clone();
        // By its number, which encryption authenticates; the metadata it does not.
        let is_direct = is_direct(publish.message_id) && !self.is_p2p();
        let to = publish.header.destination.route();
        let is_for_all = self.channels.as_ref().is_some_and(|channels| channels.data.route() == to);
        if to != self.info.local.route() && (is_direct || !is_for_all) {
            return debug!(%source, "for somebody else");
        }
        let plaintext = match self.open(cx, &publish) {
            Ok(plaintext) => plaintext,
            Err(Unreadable::Early) => return self.keep_early_data(publish),
            Err(Unreadable::Refused(reason)) => return debug!(%source, reason, "data dropped"),
        };
        // Who is not in the roster has not joined yet, as far as we know, or has
        // left. What it says is sent again, or not for us.
        let Some(entry) = self.roster.get_mut(&source) else {
            return debug!(%source, "data of a stranger dropped");
        };
        entry.heard(cx.now.at);
        let source = entry.name.clone();

        let is_reply = matches!(publish.body, Body::RtxReply(_));
        let id = publish.message_id;
        if self.timers.is_some() && !is_reply {
            self.acknowledge(cx, &source, id, is_direct);
        }
        let payload_type = match publish.body.payload_type() {
            "" => "msg",
            other => other,
        };
        let payload_type = payload_type.to_owned();
        let mut metadata = publish.metadata;
        metadata.retain(|key, _| !canonical::is_reserved(key));
        let to_me = is_direct || self.is_p2p();
        let message = ReceivedMessage { source, payload: plaintext, payload_type, metadata, to_me };
        let actions = match (is_reply, publish.header.error) {
            // Its presence alone says that the message is gone.
            (true, Some(_)) => self.inbound.reply_lost(&message.source, id),
            (true, None) => {
                let source = message.source.clone();
                let (arrival, actions) = self.inbound.reply(id, message);
                if arrival == Arrival::New {
                    self.acknowledge(cx, &source, id, false);
                }
                actions
            }
            (false, _) if is_direct => self.inbound.receive_direct(id, message).1,
            (false, _) => self.inbound.receive(cx.now.at, id, message).1,
        };
        self.pass_on(cx, actions);
    }

    /// The plaintext of a data message, whose sender and header are as they claim.
    fn open(&mut self, cx: &mut Context<'_>, publish: &Publish) -> Result<Bytes, Unreadable> {
        let (Body::Msg(payload) | Body::RtxReply(payload)) = &publish.body else {
            return Err(Unreadable::Refused("not data"));
        };
        let Some(mls) = self.mls.as_mut() else {
            return Ok(payload.blob.clone());
        };
        let opened = mls.decrypt(&payload.blob).map_err(|error| match error {
            EncryptionError::Decrypt(DecryptError::FutureEpoch { .. })
            | EncryptionError::NoGroup => Unreadable::Early,
            error => {
                debug!(%error, "cannot decrypt");
                Unreadable::Refused("cannot be decrypted")
            }
        })?;
        let source = &publish.header.source;
        if NameId::of_subject(&opened.sender) != source.id()
            && !cx.gate.lets_through(cx.out, source, Unbound::Name)
        {
            return Err(Unreadable::Refused("sent under another name"));
        }
        if !mls.stayed(&opened) {
            return Err(Unreadable::Refused("from before its sender left"));
        }
        if opened.aad != canonical::header_aad(publish) {
            return Err(Unreadable::Refused("header was changed on the way"));
        }
        Ok(opened.plaintext)
    }

    fn acknowledge(&self, cx: &mut Context<'_>, to: &Name, id: u32, is_direct: bool) {
        let mut publish = self.envelope(to.clone(), UNICAST, id, Body::MsgAck);
        if is_direct {
            let (key, value) = (canonical::PUBLISH_TO, canonical::TRUE);
            publish.metadata.insert(key.to_owned(), value.to_owned());
        }
        self.send_plain(cx, publish);
    }

    /// Sends what is neither signed nor encrypted.
    fn send_plain(&self, cx: &mut Context<'_>, mut publish: Publish) {
        let Some(identity) = cx.voice.token(cx.now, cx.rng) else { return };
        publish.header.identity = identity;
        cx.out.send(Message::Publish(publish));
    }

    fn pass_on(&mut self, cx: &mut Context<'_>, actions: Vec<inbound::Action>) {
        for action in actions {
            match action {
                inbound::Action::Deliver(message) => {
                    cx.out.event(self.id(), SessionEvent::Message(message));
                }
                inbound::Action::Lost { source, count } => {
                    cx.out.event(self.id(), SessionEvent::MessageLost { source, count });
                }
                inbound::Action::Request { source, id } => {
                    let publish = self.envelope(source, UNICAST, id, Body::RtxRequest);
                    self.send_plain(cx, publish);
                }
            }
        }
    }

    /// Data that cannot be read yet.
    pub(crate) fn keep_early_data(&mut self, publish: Publish) {
        let (Body::Msg(payload) | Body::RtxReply(payload)) = &publish.body else { return };
        let metadata: usize =
            publish.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let bytes = payload.blob.len()
            + payload.payload_type.len()
            + publish.header.identity.len()
            + metadata;
        if self.early.frames.len() < MAX_EARLY && self.early.bytes + bytes <= MAX_EARLY_BYTES {
            self.early.bytes += bytes;
            self.early.frames.push_back(publish);
        }
    }

    /// Something came that early data may have waited for.
    pub(crate) fn replay_early_data(&mut self, cx: &mut Context<'_>) {
        for publish in std::mem::take(&mut self.early).frames {
            self.on_data(cx, publish);
        }
    }

    // ------------------------------------------------------------ members and time

    /// Nothing is awaited from a member any more. If it is gone for good, what we
    /// still have of it is passed on.
    pub(super) fn forget_data(&mut self, cx: &mut Context<'_>, name: &Name, is_gone: bool) {
        let actions = if is_gone {
            let actions = self.inbound.forget(name);
            self.pass_on(cx, actions);
            self.outbound.member_gone(name)
        } else {
            self.outbound.member_offline(name)
        };
        self.carry_out(cx, actions);
    }

    /// A member is back: what it has not acknowledged is sent again.
    pub(super) fn resend_to(&mut self, cx: &mut Context<'_>, name: &Name) {
        let actions = self.outbound.member_online(cx.now.at, name);
        self.carry_out(cx, actions);
    }

    pub(super) fn fail_outstanding(&mut self, cx: &mut Context<'_>) {
        let actions = self.inbound.forget_all();
        self.pass_on(cx, actions);
        let actions = self.outbound.fail_all();
        self.carry_out(cx, actions);
    }

    pub(crate) fn on_data_deadline(&mut self, cx: &mut Context<'_>) {
        let actions = self.outbound.tick(cx.now.at);
        self.carry_out(cx, actions);
        let actions = self.inbound.tick(cx.now.at);
        self.pass_on(cx, actions);
    }
}

/// Why data is not delivered.
enum Unreadable {
    /// What it needs may still come.
    Early,
    Refused(&'static str),
}

fn payload_of(message: &Outgoing) -> AppPayload {
    AppPayload { payload_type: message.payload_type.clone(), blob: message.payload.clone() }
}
