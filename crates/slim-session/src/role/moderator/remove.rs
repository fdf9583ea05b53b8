//! A member goes: by itself, or because it is removed.

use slim_proto::{Command, GroupUpdateOp, GroupWelcome, Name, RouteName, UNICAST};
use tracing::warn;

use super::{MAX_AWAY, Moderator, Removal, Stage};
use crate::api::{CloseReason, Done, InviteError, ParticipantChange, RemoveError, RequestId};
use crate::exchange::Request;
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::role::{Purpose, TaskId};
use crate::session::Core;

impl Moderator {
    /// The application removes a member, or takes back its invitation.
    pub(crate) fn remove(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        request: RequestId,
        name: Name,
    ) {
        if core.is_p2p() {
            return cx.out.done(request, Done::Removed(Err(RemoveError::NotGroup)));
        }
        let invited = self.invites.iter().find(|(_, invite)| invite.name.same_app(&name));
        if let Some((&task, invite)) = invited {
            let error = InviteError::Refused {
                name: invite.name.clone(),
                reason: "it was removed meanwhile".into(),
            };
            self.fail_invite(core, cx, task, &error);
            self.free_slot(task);
            if core.roster.find(&name).is_none() {
                cx.out.done(request, Done::Removed(Ok(())));
                return self.pump(core, cx);
            }
        }
        let Some(member) = core.roster.find(&name).map(|entry| entry.name.clone()) else {
            return cx.out.done(request, Done::Removed(Err(RemoveError::NotMember { name })));
        };
        self.drop_member(core, cx, &member, ParticipantChange::Removed, vec![request], true);
    }

    /// A member says that it leaves. Answered also when it is out already: the
    /// first answer may be lost.
    pub(crate) fn on_leave_request(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
    ) {
        core.answer(cx, message, Command::LeaveReply);
        if core.roster.get(&message.source).is_none() {
            return;
        }
        if core.is_p2p() {
            return core.end(cx, CloseReason::PeerLeft);
        }
        let peer = message.source.clone();
        let invited = self.invites.iter().find(|(_, invite)| {
            matches!(&invite.stage, Stage::Admitting { peer: other, .. } if *other == peer)
        });
        if let Some((&task, invite)) = invited {
            let (name, reason) = (invite.name.clone(), "it left at once".to_owned());
            self.fail_invite(core, cx, task, &InviteError::Refused { name, reason });
            self.free_slot(task);
        }
        self.drop_member(core, cx, &peer, ParticipantChange::Left, Vec::new(), false);
        self.pump(core, cx);
    }

    /// Takes a member out of the roster at once, and out of the group as soon as
    /// its turn comes.
    pub(super) fn drop_member(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        name: &Name,
        change: ParticipantChange,
        waiting: Vec<RequestId>,
        dismiss: bool,
    ) {
        let Some(member) = core.drop_member(cx, name) else { return };
        self.readmitted.remove(&name.route());
        if !member.joining {
            core.tell(cx, name, change);
        }
        if !core.is_open() {
            return;
        }
        let task = self.next_task();
        let member = member.participant();
        self.removals.insert(task, Removal { member, waiting, dismiss });
        // At once: nothing that is published from here on is for it. Who is just
        // joining gets this update again once it holds the channel.
        self.retire(core, cx, task);
    }

    pub(super) fn retire(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(removal) = self.removals.get(&task) else { return };
        let member = removal.member.clone();
        let mut commit = None;
        if let Some(mls) = core.mls.as_mut() {
            match mls.remove(&member.name) {
                Ok(payload) => commit = payload,
                Err(error) => warn!(name = %member.name, %error, "cannot take out of the group"),
            }
        }
        let others: Vec<RouteName> = core.roster.online().map(Name::route).collect();
        if core.roster.is_empty() {
            return self.dismiss(core, cx, task);
        }
        let mut participants = core.participants();
        participants.push(member.clone());
        let nobody = others.is_empty();
        core.update(
            cx,
            Purpose::Retire(task),
            GroupUpdateOp::Remove,
            Some(member),
            participants,
            commit,
            others,
        );
        if nobody {
            self.dismiss(core, cx, task);
        }
    }

    /// Everybody knows that a member is out, as far as they answer.
    pub(super) fn on_retired(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        self.dismiss(core, cx, task);
        self.pump(core, cx);
    }

    /// Tells the member itself, last, whether or not all others have confirmed.
    pub(super) fn dismiss(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(removal) = self.removals.get(&task) else { return };
        if !removal.dismiss {
            return self.on_dismissed(cx, task, true);
        }
        let destination = removal.member.name.clone();
        let missing = [destination.route()];
        let request = Request {
            destination,
            fanout: UNICAST,
            command: Command::LeaveRequest,
            leaving: false,
        };
        core.request(cx, Purpose::Dismiss(task), request, core.control_pace(), missing);
    }

    pub(super) fn on_dismissed(&mut self, cx: &mut Context<'_>, task: TaskId, confirmed: bool) {
        let Some(removal) = self.removals.remove(&task) else { return };
        let route = removal.member.name.route();
        if confirmed && removal.dismiss {
            self.away.remove(&route);
        } else if self.away.len() < MAX_AWAY {
            self.away.insert(route, removal.member.clone());
        }
        for request in removal.waiting {
            let result = match confirmed {
                true => Ok(()),
                false => Err(RemoveError::Unconfirmed { name: removal.member.name.clone() }),
            };
            cx.out.done(request, Done::Removed(result));
        }
    }

    /// A member was offline and is back. Without MLS nothing tells it that it
    /// missed a change of the roster, so it gets the roster again.
    pub(crate) fn on_back(core: &mut Core, cx: &mut Context<'_>, member: &Name) {
        if core.info.mls || core.is_p2p() {
            return;
        }
        let command =
            Command::GroupWelcome(GroupWelcome { participants: core.participants(), mls: None });
        let missing = [member.route()];
        let destination = member.clone();
        let request = Request { destination, fanout: UNICAST, command, leaving: false };
        core.request(cx, Purpose::Announce, request, core.control_pace(), missing);
    }

    /// Somebody who is not a member speaks: one that was removed while it was
    /// away, or that left and does not know, is told so.
    pub(crate) fn on_stranger(&mut self, core: &mut Core, cx: &mut Context<'_>, name: &Name) {
        let Some(member) = self.away.remove(&name.route()) else { return };
        let task = self.next_task();
        self.removals.insert(task, Removal { member, waiting: Vec::new(), dismiss: true });
        self.dismiss(core, cx, task);
    }
}
