//! What is special about `p2p --message`: rounds of a message and its answer. Pure.

use std::time::Duration;

use slim_client::{CreateError, InviteError, Name};
use tokio::time::Instant;

use crate::args::Script;
use crate::failure::Failure;

/// Between two messages.
const PACE: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until an answer comes or the deadline passes.
    Wait,
    /// Send the message.
    Send,
    /// All answers are there.
    Done,
    /// An answer stayed away.
    NoAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until this time.
    Pausing(Instant),
    /// The message is being sent. The answer may be told before that is done.
    Sending {
        answered: bool,
    },
    /// The message was sent at one time; the answer is due at the other.
    Asking {
        sent_at: Instant,
        due_at: Instant,
    },
    /// The same, but the node is lost and time does not count.
    Stalled {
        sent_at: Instant,
    },
    Done,
}

/// Sends a message, waits for the answer, pauses, and does so again.
#[derive(Debug)]
pub(crate) struct Rounds {
    iterations: u32,
    left: u32,
    /// How long an answer may take.
    patience: Duration,
    state: State,
}

impl Rounds {
    /// To begin at once.
    pub(crate) fn new(script: &Script, patience: Duration, now: Instant) -> Self {
        let Script { iterations, .. } = *script;
        Self { iterations, left: iterations, patience, state: State::Pausing(now) }
    }

    /// When to ask [`Rounds::step`] again, whatever happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Pausing(at) | State::Asking { due_at: at, .. } => Some(at),
            State::Sending { .. } | State::Stalled { .. } | State::Done => None,
        }
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        match self.state {
            State::Pausing(at) if now >= at => {
                self.state = State::Sending { answered: false };
                Step::Send
            }
            State::Asking { due_at, .. } if now >= due_at => {
                self.state = State::Done;
                Step::NoAnswer
            }
            State::Done if self.left == 0 => Step::Done,
            _ => Step::Wait,
        }
    }

    /// The message is on its way.
    pub(crate) fn sent(&mut self, now: Instant) {
        if let State::Sending { answered } = self.state {
            self.state = State::Asking { sent_at: now, due_at: now + self.patience };
            if answered {
                self.answered();
            }
        }
    }

    /// The peer said something.
    pub(crate) fn answered(&mut self) {
        match self.state {
            State::Sending { .. } => self.state = State::Sending { answered: true },
            State::Asking { sent_at, .. } | State::Stalled { sent_at } => {
                self.left -= 1;
                self.state =
                    if self.left == 0 { State::Done } else { State::Pausing(sent_at + PACE) };
            }
            State::Pausing(_) | State::Done => {}
        }
    }

    /// The node is lost: an answer cannot come, and that is not the peer's fault.
    pub(crate) fn stall(&mut self) {
        if let State::Asking { sent_at, .. } = self.state {
            self.state = State::Stalled { sent_at };
        }
    }

    /// The node is back: the answer has its full time again.
    pub(crate) fn resume(&mut self, now: Instant) {
        if let State::Stalled { sent_at } = self.state {
            self.state = State::Asking { sent_at, due_at: now + self.patience };
        }
    }

    /// Number of the message whose turn it is, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.iterations - self.left + 1
    }

    /// Whether answers are missing.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.left > 0
    }
}

/// Why a call failed.
pub(crate) fn call_failure(peer: &Name, error: CreateError) -> Failure {
    match error {
        CreateError::Invite(InviteError::NoAnswer { after, .. }) => {
            Failure::NoAnswer { peer: peer.clone(), within: after }
        }
        CreateError::Invite(InviteError::IdentityMismatch { reason, .. }) => {
            Failure::RefusedByPeers { names: peer.to_string(), reason }
        }
        CreateError::Invite(InviteError::Refused { reason, .. }) => {
            Failure::Other { code: "refused", message: format!("{peer} cannot join: {reason}") }
        }
        error => other(&error),
    }
}

/// Why there is no session, if it is nobody's fault.
pub(crate) fn other(error: &CreateError) -> Failure {
    Failure::Other { code: "session", message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn rounds(iterations: u32, now: Instant) -> Rounds {
        Rounds::new(&Script { message: "hey".to_owned(), iterations }, PATIENCE, now)
    }

    /// A first message is sent, and the answer is awaited.
    fn asking(iterations: u32, now: Instant) -> Rounds {
        let mut rounds = rounds(iterations, now);
        assert_eq!(rounds.deadline(), Some(now));
        assert_eq!(rounds.step(now), Step::Send);
        assert_eq!((rounds.step(now), rounds.deadline()), (Step::Wait, None));
        rounds.sent(now);
        rounds
    }

    #[test]
    fn messages_are_a_second_apart() {
        let start = Instant::now();
        let mut rounds = asking(2, start);
        rounds.answered();
        let next = start + PACE;
        assert_eq!(rounds.deadline(), Some(next));
        assert_eq!(rounds.step(next - Duration::from_millis(1)), Step::Wait);
        assert_eq!(rounds.step(next), Step::Send);
        rounds.sent(next);
        assert_eq!(rounds.number(), 2);
        assert!(rounds.is_unfinished());
        rounds.answered();
        assert_eq!(rounds.step(next), Step::Done);
        assert!(!rounds.is_unfinished());
    }

    #[test]
    fn the_first_answer_that_stays_away_ends_it() {
        let start = Instant::now();
        let mut rounds = asking(2, start);
        assert_eq!(rounds.deadline(), Some(start + PATIENCE));
        assert_eq!(rounds.step(start + PATIENCE), Step::NoAnswer);
        assert_eq!(rounds.step(start + PATIENCE * 2), Step::Wait);
        assert!(rounds.is_unfinished());
    }

    #[test]
    fn what_the_peer_says_unasked_is_no_answer() {
        let start = Instant::now();
        let mut rounds = rounds(1, start);
        rounds.answered();
        assert_eq!(rounds.step(start), Step::Send);
        rounds.sent(start);
        assert!(rounds.is_unfinished());
    }

    #[test]
    fn an_answer_counts_even_if_it_is_told_before_the_sending_is() {
        let start = Instant::now();
        let mut rounds = rounds(1, start);
        assert_eq!(rounds.step(start), Step::Send);
        rounds.answered();
        assert_eq!(rounds.step(start), Step::Wait);
        rounds.sent(start);
        assert_eq!(rounds.step(start), Step::Done);
    }

    #[test]
    fn time_does_not_count_while_the_node_is_lost() {
        let start = Instant::now();
        let mut rounds = asking(1, start);
        rounds.stall();
        assert_eq!((rounds.deadline(), rounds.step(start + PATIENCE)), (None, Step::Wait));
        let back = start + PATIENCE * 2;
        rounds.resume(back);
        assert_eq!(rounds.deadline(), Some(back + PATIENCE));
        rounds.answered();
        assert_eq!(rounds.step(back), Step::Done);
    }
}
