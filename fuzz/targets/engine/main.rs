//! Three engines, one of them hostile: it holds the secret and a member's keys, and
//! sends what it likes to whom it likes, signed or not.
//!
//! [`World`] carries frames, moves the clock and checks what has to hold; [`forge`]
//! makes the frames that no engine would send.
#![no_main]

mod forge;
mod world;

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use slim_proto::Message;
use slim_session::{Command, Input, Outgoing, SessionConfig, Timers};

use crate::forge::{Forgery, NameOf};
use crate::world::World;

/// Steps of a run; more than these are not looked at.
const MAX_STEPS: usize = 48;

#[derive(Arbitrary, Debug)]
struct Run {
    /// Which of the three sends forgeries. The first moderates.
    hostile: u8,
    config: Config,
    is_p2p: bool,
    /// Everybody has joined before the first step.
    is_joined: bool,
    /// Frames arrive at once, instead of when a step says so.
    is_prompt: bool,
    steps: Vec<Step>,
}

/// Of a session.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Config {
    mls: bool,
    is_reliable: bool,
    is_hasty: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A frame that is on its way arrives, or all do.
    Deliver(u8),
    DeliverAll,
    Lose(u8),
    /// A frame arrives that was sent before, to whomever.
    Replay {
        which: u8,
        to: u8,
    },
    Forge(Forgery),
    /// These bytes arrive, if they are a message.
    Bytes {
        to: u8,
        bytes: Vec<u8>,
    },
    Command {
        app: u8,
        session: u8,
        command: Asked,
    },
    Pass(u16),
    LinkUp(u8),
    LinkDown(u8),
    LinkGone(u8),
    Busy {
        app: u8,
        session: u8,
        busy: bool,
    },
    /// The wall clock of one is set.
    Clock {
        app: u8,
        ahead: i32,
    },
}

/// What an application asks for.
#[derive(Arbitrary, Debug)]
enum Asked {
    CreateGroup(Config),
    CreateP2p(u8, Config),
    Invite(NameOf),
    Remove(NameOf),
    Publish { length: u8, to: Option<NameOf> },
    State,
    Flush,
    Close,
    SetPresence(bool),
}

fuzz_target!(|run: Run| {
    let mut world = World::new(run.hostile.into(), run.is_prompt);
    if run.is_joined {
        world.start(run.config.build(), run.is_p2p);
    }
    for step in run.steps.iter().take(MAX_STEPS) {
        play(&mut world, step);
    }
    world.finish();
});

fn play(world: &mut World, step: &Step) {
    let app = |app: u8| usize::from(app) % world::APPS;
    match step {
        Step::Deliver(which) => world.deliver((*which).into()),
        Step::DeliverAll => world.deliver_all(),
        Step::Lose(which) => world.lose((*which).into()),
        Step::Replay { which, to } => {
            if let Some(publish) = world.recorded(*which).cloned() {
                world.receive(app(*to), Message::Publish(publish));
            }
        }
        Step::Forge(forgery) => forgery.play(world),
        Step::Bytes { to, bytes } => {
            if let Ok(message) = Message::decode(Bytes::copy_from_slice(bytes)) {
                world.receive(app(*to), message);
            }
        }
        Step::Command { app: by, session, command } => {
            let command = command.build(world, *session);
            world.command(app(*by), command);
        }
        Step::Pass(time) => world.pass(Duration::from_millis(u64::from(*time) * 2)),
        Step::LinkUp(who) => world.input(app(*who), Input::LinkUp),
        Step::LinkDown(who) => world.input(app(*who), Input::LinkDown),
        Step::LinkGone(who) => world.input(app(*who), Input::LinkGone),
        Step::Busy { app: who, session, busy } => {
            let session = world.session(*session);
            world.input(app(*who), Input::Busy(session, *busy));
        }
        Step::Clock { app: who, ahead } => world.set_clock(app(*who), *ahead),
    }
    world.settle();
}

impl Config {
    fn build(self) -> SessionConfig {
        let timers = match self.is_hasty {
            true => Timers { timeout: Duration::from_millis(200), max_retries: 2 },
            false => Timers::default(),
        };
        SessionConfig {
            timers: self.is_reliable.then_some(timers),
            mls: self.mls,
            ..SessionConfig::default()
        }
    }
}

impl Asked {
    fn build(&self, world: &mut World, session: u8) -> Command {
        let id = world.session(session);
        match self {
            Self::CreateGroup(config) => {
                Command::CreateGroup { channel: world.channel(), config: config.build() }
            }
            Self::CreateP2p(peer, config) => {
                let peer = world.name(usize::from(*peer) % world::APPS).without_id();
                Command::CreateP2p { peer, config: config.build() }
            }
            Self::Invite(name) => Command::Invite { session: id, name: name.build(world) },
            Self::Remove(name) => Command::Remove { session: id, name: name.build(world) },
            Self::Publish { length, to } => {
                let payload = world.payload((*length).into());
                let to = to.as_ref().map(|name| name.build(world));
                let message = Outgoing { payload, to, ..Outgoing::default() };
                Command::Publish { session: id, message }
            }
            Self::State => Command::State { session: id },
            Self::Flush => Command::Flush { session: id },
            Self::Close => Command::Close { session: id },
            Self::SetPresence(online) => Command::SetPresence { session: id, online: *online },
        }
    }
}
