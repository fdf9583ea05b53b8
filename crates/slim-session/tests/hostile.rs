//! Peers that lie. The victim is a group that goes on beside it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{CHANNEL, Mallory, World, config, receive};
use slim_auth::Identity as _;
use slim_proto::{
    AppPayload, Body, Command as Wire, GroupUpdate, GroupUpdateOp, GroupWelcome, JoinReply,
    JoinRequest, Message, MessageType, Name, Participant, ParticipantState, Publish, SessionId,
    SessionType, UpdateParticipantState,
};
use slim_session::{Command, Done, Input};

fn row(name: &Name) -> Participant {
    Participant {
        name: name.clone(),
        sends_data: true,
        receives_data: true,
        status: ParticipantState::Online,
    }
}

/// The group still works, and is who it was.
fn check_unharmed(world: &mut World, session: SessionId) {
    let members = world.apps.len();
    for app in 0..members {
        let before: Vec<usize> = (0..members).map(|other| world.messages(other).len()).collect();
        let request = world.publish(app, session, "unharmed");
        world.pass(Duration::from_secs(1));
        match &world.apps[app].done[&request] {
            Done::Published(Ok(report)) => {
                assert_eq!((report.delivered.len(), report.lost.len()), (members - 1, 0));
            }
            other => panic!("{other:?}"),
        }
        for other in (0..members).filter(|other| *other != app) {
            assert_eq!(world.messages(other).len(), before[other] + 1);
        }
        assert_eq!(world.closed(app), None);
        let state = world.command(app, Command::State { session });
        match &world.apps[app].done[&state] {
            Done::State(Some(state)) => {
                assert_eq!(state.members.len(), members);
                assert!(state.members.iter().all(|member| member.online));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn commands(world: &World, mallory: &Mallory) -> Vec<Wire> {
    let victim = row(&world.name(2));
    vec![
        Wire::GroupClose { participants: vec![] },
        Wire::LeaveRequest,
        Wire::LeaveReply,
        Wire::DiscoveryRequest,
        Wire::DiscoveryReply,
        Wire::JoinReply(JoinReply { key_package: None, participant: row(&mallory.name) }),
        Wire::JoinRequest(JoinRequest {
            timer_settings: None,
            channels: Some(world.name(0).without_id().channels("somebody")),
            mls_aad_percent: None,
        }),
        Wire::GroupUpdate(GroupUpdate {
            op: GroupUpdateOp::Remove,
            participant: Some(victim.clone()),
            participants: vec![victim.clone()],
            mls: None,
        }),
        Wire::GroupUpdate(GroupUpdate {
            op: GroupUpdateOp::Add,
            participant: Some(row(&mallory.name)),
            participants: vec![row(&mallory.name)],
            mls: None,
        }),
        Wire::GroupWelcome(GroupWelcome { participants: vec![row(&mallory.name)], mls: None }),
        Wire::GroupAck,
        Wire::GroupNack,
        Wire::Heartbeat { epoch: 999 },
        Wire::UpdateParticipantState(UpdateParticipantState {
            participant: world.name(2),
            new_state: ParticipantState::Offline,
            epoch: 1,
        }),
        Wire::RejoinRequest(slim_proto::RejoinRequest {
            participant: mallory.name.clone(),
            key_package: Bytes::from_static(b"no key package"),
        }),
        Wire::RejoinReply(slim_proto::RejoinReply {
            commit_id: 99,
            welcome: Bytes::from_static(b"no welcome"),
        }),
        Wire::GroupProposal { source: mallory.name.clone(), mls_proposal: Bytes::new() },
    ]
}

#[test]
fn a_stranger_with_the_secret_changes_nothing() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let mallory = Mallory::insider();
        for command in commands(&world, &mallory) {
            for app in 0..3 {
                let to = world.name(app);
                let publish = mallory.unsigned(&to, session, Body::Command(command.clone()));
                let publish = mallory.sign(&world, publish);
                receive(&mut world, app, publish);
            }
        }
        check_unharmed(&mut world, session);
    }
}

/// Everything that only the moderator or the member itself may say, under their
/// name, but without their signature.
#[test]
fn a_name_alone_is_not_believed() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let mallory = Mallory::insider();
        for command in commands(&world, &mallory) {
            for (app, claimed) in [(0, 1), (1, 0), (2, 0), (2, 1)] {
                let to = world.name(app);
                let mut publish = mallory.unsigned(&to, session, Body::Command(command.clone()));
                publish.header.source = world.name(claimed);
                let signed = mallory.sign(&world, publish.clone());
                receive(&mut world, app, signed);
                receive(&mut world, app, publish);
            }
        }
        check_unharmed(&mut world, session);
    }
}

/// A shared secret lets its holders make a token for any subject. Not even that
/// makes them a member that is known by its key.
#[test]
fn a_minted_token_for_a_members_subject_is_not_believed() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        if !mls {
            // Members have shown their keys once.
            world.pass(Duration::from_secs(11));
        }
        let mallory = Mallory::insider();
        for (app, claimed) in [(1, 0), (2, 0), (0, 1)] {
            for command in [
                Wire::GroupClose { participants: vec![] },
                Wire::LeaveRequest,
                Wire::UpdateParticipantState(UpdateParticipantState {
                    participant: world.name(claimed),
                    new_state: ParticipantState::Offline,
                    epoch: 2,
                }),
            ] {
                let to = world.name(app);
                let publish = mallory.unsigned(&to, session, Body::Command(command));
                let publish = mallory.sign_as(&world, claimed, publish);
                receive(&mut world, app, publish);
            }
        }
        check_unharmed(&mut world, session);
    }
}

/// Everything that was ever sent comes again, to everybody, twice.
#[test]
fn replayed_frames_do_nothing() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        for app in 0..3 {
            world.publish(app, session, "once");
        }
        world.run();
        let recorded = world.sent.clone();
        for (from, publish) in recorded.iter().chain(&recorded) {
            for app in (0..3).filter(|app| app != from) {
                receive(&mut world, app, publish.clone());
            }
        }
        for app in 0..3 {
            assert_eq!(world.heard(app).len(), 2, "mls {mls}");
        }
        check_unharmed(&mut world, session);
    }
}

/// What the node could do to a frame on its way, in a session with MLS.
#[test]
fn a_changed_header_or_payload_is_not_delivered() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    world.filter = Some(Box::new(|_, _, message| !common::is_data(message)));
    world.publish(1, session, "original");
    world.run();
    world.filter = None;
    let (_, original) = world.sent.last().unwrap().clone();
    assert_eq!(original.body.message_type(), MessageType::Msg);

    let change = |change: &dyn Fn(&mut Publish)| {
        let mut publish = original.clone();
        change(&mut publish);
        publish
    };
    let bob = world.name(2);
    let mut changed = vec![
        change(&|publish| publish.header.source = bob.clone()),
        change(&|publish| publish.header.destination = bob.clone()),
        change(&|publish| publish.header.identity.push('x')),
        change(&|publish| publish.message_id += 1),
        change(&|publish| {
            let Body::Msg(payload) = &mut publish.body else { panic!("not data") };
            payload.payload_type = "order".into();
        }),
        change(&|publish| {
            let Body::Msg(payload) = publish.body.clone() else { panic!("not data") };
            publish.body = Body::RtxReply(payload);
        }),
    ];
    let Body::Msg(AppPayload { blob, .. }) = &original.body else { panic!("not data") };
    for position in [0, 4, 40, blob.len() / 2, blob.len() - 1] {
        let mut blob = blob.to_vec();
        blob[position] ^= 1;
        changed.push(change(&|publish| {
            let Body::Msg(payload) = &mut publish.body else { panic!("not data") };
            payload.blob = blob.clone().into();
        }));
    }
    for publish in changed {
        let acks = world.count_sent(0, MessageType::MsgAck);
        receive(&mut world, 0, publish);
        assert!(world.heard(0).is_empty());
        assert_eq!(world.count_sent(0, MessageType::MsgAck), acks, "not acknowledged either");
    }
    // It is sent again, and then it arrives.
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(0), ["alice: original"]);
}

#[test]
fn data_of_a_stranger_is_dropped() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let mallory = Mallory::insider();
        let payload = AppPayload { payload_type: "msg".into(), blob: Bytes::from_static(b"boo") };
        for app in 0..3 {
            let to = world.name(app);
            for body in [Body::Msg(payload.clone()), Body::RtxReply(payload.clone())] {
                let publish = mallory.unsigned(&to, session, body);
                let publish = mallory.sign(&world, publish);
                receive(&mut world, app, publish);
            }
        }
        assert!((0..3).all(|app| world.heard(app).is_empty()));
        check_unharmed(&mut world, session);
    }
}

/// A group on a channel that belongs to somebody else.
#[test]
fn an_invitation_to_a_foreign_channel_is_ignored() {
    let mut world = World::new(&["alice"]);
    let mallory = Mallory::insider();
    let foreign = CHANNEL.parse::<Name>().unwrap().channels("org/test/mod_XXXXXXXX");
    let own = CHANNEL.parse::<Name>().unwrap().channels(mallory.identity.subject());
    for (channels, accepted) in [(foreign, 0), (own, 1)] {
        let command = Wire::JoinRequest(JoinRequest {
            timer_settings: None,
            channels: Some(channels),
            mls_aad_percent: None,
        });
        let to = world.name(0);
        let publish = mallory.unsigned(&to, SessionId(7), Body::Command(command));
        let publish = mallory.sign(&world, publish);
        receive(&mut world, 0, publish);
        assert_eq!(world.count_sent(0, MessageType::JoinReply), accepted);
    }
}

/// Thousands of invitations that never come to a welcome leave nothing behind.
#[test]
fn a_flood_of_invitations_is_bounded_and_passes() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(true));
    let mallory = Mallory::insider();
    for n in 0..5000 {
        let command = Wire::JoinRequest(JoinRequest {
            timer_settings: None,
            channels: None,
            mls_aad_percent: None,
        });
        let to = world.name(1);
        let mut publish = mallory.unsigned(&to, SessionId(n), Body::Command(command));
        publish.session_type = SessionType::PointToPoint;
        publish.message_id = n + 1;
        let publish = mallory.sign(&world, publish);
        let message = Message::Publish(publish);
        world.input(1, Input::Received(message));
    }
    assert_eq!(world.apps[1].endpoint.session_count(), 4096);
    check_unharmed(&mut world, session);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.apps[1].endpoint.session_count(), 1);
    check_unharmed(&mut world, session);
}

/// Tokens of another secret are said once, and cost nobody anything.
#[test]
fn an_outsider_changes_nothing() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    let mallory = Mallory::new("the secret of another circle, 32+");
    for command in commands(&world, &mallory) {
        for app in 0..3 {
            let to = world.name(app);
            let publish = mallory.unsigned(&to, session, Body::Command(command.clone()));
            let publish = mallory.sign(&world, publish);
            receive(&mut world, app, publish);
        }
    }
    for app in 0..3 {
        assert!(world.apps[app].mismatches.len() <= 1);
    }
    check_unharmed(&mut world, session);
}

/// Messages of a session that we know nothing of are answered by nothing.
#[test]
fn an_unknown_session_is_ignored() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    let mallory = Mallory::insider();
    let unknown = SessionId(session.0 ^ 1);
    let to = world.name(1);
    let (sent, seen) = (world.sent.len(), world.apps[1].events.len());
    let payload = AppPayload { payload_type: "msg".into(), blob: Bytes::from_static(b"boo") };
    let mut bodies =
        vec![Body::Msg(payload.clone()), Body::RtxReply(payload), Body::MsgAck, Body::RtxRequest];
    // Discovery and join open sessions; the rest is about one that is there.
    bodies.extend(
        commands(&world, &mallory)
            .into_iter()
            .filter(|command| !matches!(command, Wire::DiscoveryRequest | Wire::JoinRequest(_)))
            .map(Body::Command),
    );
    for body in bodies {
        let publish = mallory.unsigned(&to, unknown, body);
        let publish = mallory.sign(&world, publish);
        receive(&mut world, 1, publish);
    }
    assert_eq!(world.sent.len(), sent, "nothing was sent");
    assert_eq!(world.apps[1].events.len(), seen);
    check_unharmed(&mut world, session);
}

/// Each answer costs two signatures, and everybody can ask for it.
#[test]
fn a_flood_of_unreadable_invitations_is_answered_rarely() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(true));
    let mallory = Mallory::new("the secret of another circle, 32+");
    for n in 0..1000 {
        let to = world.name(1);
        let body = if n % 2 == 0 {
            Wire::DiscoveryRequest
        } else {
            Wire::JoinRequest(JoinRequest {
                timer_settings: None,
                channels: None,
                mls_aad_percent: None,
            })
        };
        let mut publish = mallory.unsigned(&to, SessionId(n), Body::Command(body));
        publish.session_type = SessionType::PointToPoint;
        let publish = mallory.sign(&world, publish);
        receive(&mut world, 1, publish);
        world.pass(Duration::from_millis(1));
    }
    let answers = world.count_sent(1, MessageType::GroupNack);
    assert!((1..=11).contains(&answers), "{answers}");
    check_unharmed(&mut world, session);
}

/// Whoever hears a request can say in the name of who is asked that the secrets
/// differ. The one who is asked answers as well, and that counts.
#[test]
fn a_forged_answer_does_not_end_an_invitation() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.create_group(config(true));
    let mut mallory = Mallory::new("the secret of another circle, 32+");
    mallory.name = world.name(1).with_id(mallory.name.id());
    world.lose(MessageType::DiscoveryRequest, 1, 2);
    let request = world.invite(session, 1);
    for _ in 0..2 {
        world.run();
        let (_, asked) = world.sent.last().unwrap().clone();
        assert_eq!(asked.body.message_type(), MessageType::DiscoveryRequest);
        for command in [Wire::DiscoveryReply, Wire::GroupNack] {
            let to = world.name(0);
            let mut publish = mallory.unsigned(&to, session, Body::Command(command));
            publish.message_id = asked.message_id;
            let publish = mallory.sign(&world, publish);
            receive(&mut world, 0, publish);
        }
        world.pass(Duration::from_secs(1));
    }
    world.pass(Duration::from_secs(1));
    assert!(world.joined(request), "{:?}", world.apps[0].done.get(&request));
}

/// A member that names an epoch which does not exist costs nobody a commit.
#[test]
fn a_member_that_lies_about_its_epoch_is_not_believed() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    world.pass(Duration::from_secs(11));
    let liar = world.apps[2].identity.clone();
    let mut mallory = Mallory::insider();
    (mallory.identity, mallory.name) = (liar, world.name(2));
    for n in 0..60 {
        for epoch in [3, 4, 999, u64::MAX - 1] {
            for app in 0..2 {
                let to = world.name(app);
                let body = Body::Command(Wire::Heartbeat { epoch });
                let mut publish = mallory.unsigned(&to, session, body);
                publish.message_id = n * 1000 + epoch as u32 % 1000;
                let publish = mallory.sign(&world, publish);
                receive(&mut world, app, publish);
            }
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.count_sent(1, MessageType::RejoinRequest), 0);
    check_unharmed(&mut world, session);
}
