//! What only members, or only the moderator, may say, said by somebody else. The
//! engines of the members ignore it.

use bytes::Bytes;
use slim_client::{InviteError, Session};
use slim_proto::{
    Body, Command, GroupUpdate, GroupUpdateOp, GroupWelcome, JoinReply, JoinRequest, MlsPayload,
    Participant, ParticipantState, Publish, RejoinReply, RejoinRequest, UpdateParticipantState,
    canonical,
};
use slim_testkit::within;

use crate::conversation::{Scene, beside_a_conversation};
use crate::mallory::{Mallory, data, unix};

const OTHER_SECRET: &str = "the secret of another circle, 32+";

fn row(mallory: &Mallory) -> Participant {
    Participant {
        name: mallory.name.clone(),
        sends_data: true,
        receives_data: true,
        status: ParticipantState::Online,
    }
}

fn update(op: GroupUpdateOp, who: Participant, commit: &'static [u8]) -> Command {
    Command::GroupUpdate(GroupUpdate {
        op,
        participant: Some(who.clone()),
        participants: vec![who],
        mls: Some(MlsPayload { commit_id: 1000, mls_content: Bytes::from_static(commit) }),
    })
}

/// What only the moderator may say.
fn orders(scene: &Scene, mallory: &Mallory) -> Vec<Command> {
    let victim = Participant { name: scene.name(1), ..row(mallory) };
    vec![
        Command::GroupClose { participants: vec![] },
        Command::LeaveRequest,
        update(GroupUpdateOp::Remove, victim.clone(), b"no commit"),
        update(GroupUpdateOp::Add, row(mallory), b"no commit"),
        update(GroupUpdateOp::Rejoin, victim, b""),
        Command::GroupWelcome(GroupWelcome { participants: vec![row(mallory)], mls: None }),
        Command::RejoinReply(RejoinReply {
            commit_id: 1000,
            welcome: Bytes::from_static(b"no welcome"),
        }),
        Command::JoinRequest(JoinRequest {
            timer_settings: None,
            channels: Some(scene.name(0).without_id().channels("somebody")),
            mls_aad_percent: None,
        }),
    ]
}

/// What members say of themselves.
fn statements(scene: &Scene, mallory: &Mallory, claimed: usize) -> Vec<Command> {
    let participant = scene.name(claimed);
    vec![
        Command::LeaveRequest,
        Command::Heartbeat { epoch: 999 },
        Command::UpdateParticipantState(UpdateParticipantState {
            participant: participant.clone(),
            new_state: ParticipantState::Offline,
            epoch: 1,
        }),
        Command::RejoinRequest(RejoinRequest {
            participant,
            key_package: Bytes::from_static(b"no key package"),
        }),
        Command::JoinReply(JoinReply { key_package: None, participant: row(mallory) }),
        Command::GroupAck,
        Command::GroupNack,
    ]
}

/// All of these, under the name of each member.
fn claims(scene: &Scene, mallory: &Mallory) -> Vec<(usize, Command)> {
    let of = |claimed| {
        let commands = [orders(scene, mallory), statements(scene, mallory, claimed)].concat();
        commands.into_iter().map(move |command| (claimed, command))
    };
    (0..3).flat_map(of).collect()
}

/// Sends each of these to everybody in each of these ways.
async fn say(scene: &Scene, mallory: &mut Mallory, commands: Vec<Command>) {
    for command in commands {
        let publish = mallory.unsigned(&scene.channel, scene.session, Body::Command(command));
        for destination in mallory.everywhere(scene) {
            let mut copy = publish.clone();
            copy.header.destination = destination;
            let copy = mallory.sign(copy);
            mallory.send(copy).await;
        }
    }
    mallory.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_claims_a_role() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let orders = orders(scene, &mallory);
        say(scene, &mut mallory, orders).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_claims_to_be_the_moderator() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::member(scene, 2).await;
        for order in orders(scene, &mallory) {
            for destination in [scene.name(1), scene.channel.clone()] {
                let publish = mallory.command(&destination, scene.session, order.clone());
                mallory.send(publish).await;
            }
        }
        mallory.settle().await;
    })
    .await;
}

/// Under the name of each member, but with a token of her own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_under_a_members_name() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        for (claimed, command) in claims(scene, &mallory) {
            let body = Body::Command(command);
            let mut publish = mallory.unsigned(&scene.channel, scene.session, body);
            publish.header.source = scene.name(claimed);
            let publish = mallory.sign(publish);
            mallory.send_to_all(scene, &publish).await;
        }
        mallory.settle().await;
    })
    .await;
}

/// A shared secret lets its holders make a token for any subject; members are known
/// by their keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_minted_token_of_a_member() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        for (claimed, command) in claims(scene, &mallory) {
            for destination in mallory.everywhere(scene) {
                let body = Body::Command(command.clone());
                let publish = mallory.unsigned(&destination, scene.session, body);
                let publish = mallory.sign_as(scene, claimed, publish);
                mallory.send(publish).await;
            }
        }
        mallory.settle().await;
    })
    .await;
}

/// The moderator's own order, spoiled, is none; and as it was, it is one, which shows
/// that nothing else was wrong with it.
async fn check_signature(spoil: impl Fn(&mut Publish)) {
    let mut scene = Scene::start(Default::default()).await;
    scene.rounds(5).await;
    let mut moderator = Mallory::member(&scene, 0).await;
    let mut orders = Vec::new();
    for member in [1, 2] {
        let close = Command::GroupClose { participants: vec![] };
        orders.push(moderator.command(&scene.name(member), scene.session, close));
    }
    for order in &orders {
        let mut spoiled = order.clone();
        spoil(&mut spoiled);
        assert_ne!(spoiled, *order);
        moderator.send(spoiled).await;
    }
    moderator.settle().await;
    scene.rounds(5).await;
    scene.finish().await;
    for (order, session) in orders.into_iter().zip(&scene.sessions[1..]) {
        moderator.send(order).await;
        within("the end", until_closed(session)).await;
    }
}

async fn until_closed(session: &Session) {
    while session.next_event().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripped_header_signature() {
    check_signature(|publish| publish.header.e2e_header_sig = None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripped_payload_signature() {
    check_signature(|publish| {
        publish.metadata.remove(canonical::PAYLOAD_SIGNATURE);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_header_signature() {
    check_signature(|publish| {
        let mut signature = publish.header.e2e_header_sig.take().unwrap().to_vec();
        *signature.last_mut().unwrap() ^= 1;
        publish.header.e2e_header_sig = Some(signature.into());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_payload_signature() {
    check_signature(|publish| {
        let signature = publish.metadata.get_mut(canonical::PAYLOAD_SIGNATURE).unwrap();
        // Of the base64 text, a character that counts.
        let other = if signature.as_bytes()[20] == b'A' { "B" } else { "A" };
        signature.replace_range(20..21, other);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_was_changed_under_its_signature() {
    check_signature(|publish| publish.body = Body::Command(Command::LeaveRequest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_added_under_the_signature() {
    check_signature(|publish| {
        publish.metadata.insert("urgent".to_owned(), "TRUE".to_owned());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_secret() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::with_secret(scene, OTHER_SECRET).await;
        let mut commands = orders(scene, &mallory);
        commands.extend(statements(scene, &mallory, 1));
        say(scene, &mut mallory, commands).await;
    })
    .await;
}

/// The moderator's own order, with a token that is over, or not yet valid.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_time() {
    beside_a_conversation(async |scene| {
        let mut moderator = Mallory::member(scene, 0).await;
        for shift in [-2 * 3600, 2 * 3600, 400 * 24 * 3600_i64] {
            for member in [1, 2] {
                let close = Body::Command(Command::GroupClose { participants: vec![] });
                let publish = moderator.unsigned(&scene.name(member), scene.session, close);
                let publish = moderator.sign_at(unix().saturating_add_signed(shift), publish);
                moderator.send(publish).await;
            }
        }
        moderator.settle().await;
    })
    .await;
}

/// A member's epoch is its own business: nobody joins anew because it names another.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_epochs() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::member(scene, 2).await;
        for epoch in [0, 1, 2, 3, 4, 999, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let heartbeat = Command::Heartbeat { epoch };
            say(scene, &mut mallory, vec![heartbeat]).await;
        }
        // What believes it acts within one period of the session's timer, which a
        // member shows by asking the moderator, and the moderator by a new epoch.
        let timeout = slim_client::Timers::default().timeout;
        let over = tokio::time::Instant::now() + 3 * timeout;
        while tokio::time::Instant::now() < over {
            scene.rounds(1).await;
        }
    })
    .await;
}

/// Thousands of commits from who may not make any, and requests for new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_commits() {
    beside_a_conversation(async |scene| {
        let mut stranger = Mallory::insider(scene).await;
        let mut member = Mallory::member(scene, 2).await;
        for _ in 0..300 {
            for mallory in [&mut stranger, &mut member] {
                let add = update(GroupUpdateOp::Add, row(mallory), &[0, 1, 0, 1, 64]);
                let to_alice = mallory.command(&scene.name(1), scene.session, add);
                mallory.send(to_alice).await;
                let rejoin = Command::RejoinRequest(RejoinRequest {
                    participant: mallory.name.clone(),
                    key_package: Bytes::from_static(&[0, 1, 0, 5, 0, 1]),
                });
                let to_moderator = mallory.command(&scene.name(0), scene.session, rejoin);
                mallory.send(to_moderator).await;
            }
        }
        stranger.settle().await;
        member.settle().await;
    })
    .await;
}

/// Data of who is not in the group, and data under a member's name that no member
/// has encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_stranger() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        for number in 0..50 {
            for source in [mallory.name.clone(), scene.name(0), scene.name(1), scene.name(2)] {
                for body in [Body::Msg(data("boo")), Body::RtxReply(data("boo"))] {
                    let mut publish = mallory.unsigned(&scene.channel, scene.session, body);
                    publish.message_id = number;
                    publish.header.source = source.clone();
                    let publish = mallory.sign(publish);
                    mallory.send_to_all(scene, &publish).await;
                }
            }
        }
        mallory.settle().await;
    })
    .await;
}

/// Somebody who was invited answers with this key package. She does not get in, the
/// moderator is told, and the others notice nothing.
async fn check_key_package(key_package: impl Fn(&Mallory, &Publish) -> Option<Bytes>) {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        mallory.subscribe(&mallory.name.clone()).await;
        let name = mallory.name.clone();
        let invite = scene.sessions[0].invite(&name);
        let answer = async {
            loop {
                let (request, command) = mallory.next_command().await;
                let reply = match command {
                    Command::DiscoveryRequest => Command::DiscoveryReply,
                    Command::JoinRequest(_) => Command::JoinReply(JoinReply {
                        key_package: key_package(&mallory, &request),
                        participant: row(&mallory),
                    }),
                    Command::GroupWelcome(_) => panic!("she was let in"),
                    _ => continue,
                };
                let body = Body::Command(reply);
                let mut reply = mallory.unsigned(&request.header.source, scene.session, body);
                reply.message_id = request.message_id;
                let reply = mallory.sign(reply);
                mallory.send(reply).await;
            }
        };
        let outcome = tokio::select! {
            outcome = within("the outcome", invite) => outcome,
            never = answer => never,
        };
        let refused =
            matches!(outcome, Err(InviteError::Refused { .. } | InviteError::NoAnswer { .. }));
        assert!(refused, "{outcome:?}");
    })
    .await;
}

const YEAR: i64 = 365 * 24 * 3600;

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_package() {
    check_key_package(|mallory, request| crate::replies::key_package(mallory, request, -2 * YEAR))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_package_from_the_future() {
    check_key_package(|mallory, request| crate::replies::key_package(mallory, request, YEAR)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_key_package() {
    for spoil in [
        (|_| Bytes::from_static(b"no key package")) as fn(Bytes) -> Bytes,
        |good| good.slice(..good.len() - 1),
        |good| {
            let mut spoiled = good.to_vec();
            *spoiled.last_mut().unwrap() ^= 1;
            spoiled.into()
        },
    ] {
        check_key_package(|mallory, request| {
            crate::replies::key_package(mallory, request, 0).map(spoil)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_package() {
    check_key_package(|_, _| None).await;
}
