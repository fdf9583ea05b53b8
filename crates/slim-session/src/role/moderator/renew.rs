//! New keys for who lost track, and a new credential for ourselves.

use bytes::Bytes;
use slim_auth::Claims;
use slim_proto::{
    Command, GroupUpdateOp, MlsPayload, Name, RejoinReply, RejoinRequest, RouteName, UNICAST,
};
use tracing::{debug, warn};

use super::{Change, Moderator};
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::role::Purpose;
use crate::roster::Entry;
use crate::session::Core;

impl Moderator {
    /// A member with lost state asks for a new welcome (session protocol, epoch
    /// mismatch).
    pub(crate) fn on_rejoin_request(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
        request: &RejoinRequest,
    ) {
        let known = core.roster.get(&message.source).is_some();
        if !core.info.mls || !known || request.participant.route() != message.source.route() {
            return debug!(source = %message.source, "rejoin request ignored");
        }
        core.memory.remember(
            &message.source,
            message.command.message_type(),
            message.message_id,
            None,
        );
        let member = message.source.clone();
        // A copy under a new id: our answer is on its way, or was lost. Another
        // commit would throw the member out of the group that it is entering.
        if let Some((known, reply)) = self.readmitted.get(&member.route())
            && *known == request.key_package
        {
            let reply = reply.clone();
            return core.answer(cx, message, reply);
        }
        // A newer request of the same member replaces one that waits.
        self.changes.retain(
            |change| !matches!(change, Change::Rejoin { member: other, .. } if *other == member),
        );
        self.changes.push_back(Change::Rejoin {
            member,
            message_id: message.message_id,
            key_package: request.key_package.clone(),
            claims: message.claims.clone(),
        });
        self.pump(core, cx);
    }
}

/// Replaces a member's leaf and welcomes it again.
pub(super) fn readmit(
    core: &mut Core,
    cx: &mut Context<'_>,
    member: &Name,
    message_id: u32,
    key_package: &Bytes,
    claims: &Claims,
) -> Option<Command> {
    core.roster.get(member)?;
    let readmitted = match core.mls.as_mut()?.rejoin(cx, key_package, claims) {
        Ok(readmitted) => readmitted,
        Err(error) => {
            warn!(%member, %error, "rejoin refused");
            return None;
        }
    };
    let (commit, welcome): (MlsPayload, MlsPayload) = (readmitted.commit, readmitted.welcome);
    let reply = Command::RejoinReply(RejoinReply {
        commit_id: welcome.commit_id,
        welcome: welcome.mls_content,
    });
    core.send_command(cx, member.clone(), UNICAST, message_id, reply.clone(), false);
    let kind = slim_proto::MessageType::RejoinRequest;
    core.memory.remember(member, kind, message_id, Some(reply.clone()));
    core.member_online(cx, member);
    let row = core.roster.get(member).map(Entry::participant)?;
    let online: Vec<RouteName> = core.roster.online().map(Name::route).collect();
    let participants = core.participants();
    let rejoin = GroupUpdateOp::Rejoin;
    core.update(cx, Purpose::Announce, rejoin, Some(row), participants, Some(commit), online);
    Some(reply)
}

/// A commit that renews our credential and changes nothing else.
pub(super) fn refresh(core: &mut Core, cx: &mut Context<'_>) {
    let Some(mls) = core.mls.as_mut() else { return };
    let commit = match mls.refresh(cx) {
        Ok(commit) => commit,
        Err(error) => return warn!(%error, "cannot renew the credential"),
    };
    let online: Vec<RouteName> = core.roster.online().map(Name::route).collect();
    let participants = core.participants();
    core.update(
        cx,
        Purpose::Announce,
        GroupUpdateOp::Add,
        None,
        participants,
        Some(commit),
        online,
    );
}
