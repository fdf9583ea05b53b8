//! What is special about a group: who was invited at the start, and what became
//! of it. Pure.

use slim_client::InviteError;

use crate::args::Invitee;
use crate::failure::Failure;
use crate::output::InviteOutcome;

/// The invitations of `--invites`.
#[derive(Debug, Default)]
pub(crate) struct Invitations {
    names: Vec<String>,
    open: usize,
    joined: usize,
    mismatched: usize,
    /// What the first of them said.
    mismatch: Option<String>,
}

impl Invitations {
    /// All of them are open.
    pub(crate) fn new(invitees: &[Invitee]) -> Self {
        Self {
            names: invitees.iter().map(|invitee| invitee.given.clone()).collect(),
            open: invitees.len(),
            ..Self::default()
        }
    }

    /// One of them has this outcome.
    pub(crate) fn settle<T>(&mut self, outcome: &Result<T, InviteError>) {
        self.open -= 1;
        match outcome {
            Ok(_) => self.joined += 1,
            Err(InviteError::IdentityMismatch { reason, .. }) => {
                self.mismatched += 1;
                self.mismatch.get_or_insert_with(|| reason.clone());
            }
            Err(_) => {}
        }
    }

    /// Whether each has its outcome.
    pub(crate) fn are_settled(&self) -> bool {
        self.open == 0
    }

    /// Why the group makes no sense, if it does not. Who sits at a terminal can
    /// invite others, but not with this secret.
    pub(crate) fn failure(&self, is_terminal: bool) -> Option<Failure> {
        if self.open > 0 || self.joined > 0 || self.names.is_empty() {
            None
        } else if self.mismatched == self.names.len() {
            let reason = self.mismatch.clone().unwrap_or_default();
            Some(Failure::RefusedByPeers { names: self.names.join(", "), reason })
        } else if is_terminal {
            None
        } else {
            Some(Failure::NobodyJoined(self.names.join(", ")))
        }
    }
}

/// The outcome of an invitation and its reason, in the words of the `invite` event.
pub(crate) fn outcome<T>(result: &Result<T, InviteError>) -> (InviteOutcome, String) {
    match result {
        Ok(_) => (InviteOutcome::Joined, "joined".to_owned()),
        Err(InviteError::NoAnswer { after, .. }) => {
            (InviteOutcome::NoAnswer, format!("no answer after {} s", after.as_secs_f32()))
        }
        Err(InviteError::IdentityMismatch { reason, .. } | InviteError::Refused { reason, .. }) => {
            (InviteOutcome::Refused, reason.clone())
        }
        Err(error) => (InviteOutcome::Refused, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slim_client::Name;

    use super::*;

    type Outcome = Result<(), InviteError>;

    fn name() -> Name {
        "a/b/c".parse().unwrap()
    }

    fn mismatch() -> Outcome {
        Err(InviteError::IdentityMismatch { name: name(), reason: "secrets differ".to_owned() })
    }

    fn no_answer() -> Outcome {
        Err(InviteError::NoAnswer { name: name(), after: Duration::from_millis(1500) })
    }

    /// The exit status that these outcomes lead to.
    fn check(outcomes: &[Outcome], is_terminal: bool) -> Option<u8> {
        let invitee = Invitee { given: "a/b/c".to_owned(), name: name() };
        let mut invitations = Invitations::new(&vec![invitee; outcomes.len()]);
        for outcome in outcomes {
            assert!(!invitations.are_settled());
            assert!(invitations.failure(is_terminal).is_none());
            invitations.settle(outcome);
        }
        assert!(invitations.are_settled());
        invitations.failure(is_terminal).map(|failure| failure.status())
    }

    #[test]
    fn one_who_joined_is_enough() {
        assert_eq!(check(&[mismatch(), no_answer(), Ok(())], false), None);
    }

    #[test]
    fn a_group_that_nobody_joined_fails_unless_one_can_invite_others() {
        assert_eq!(check(&[no_answer(), mismatch()], false), Some(5));
        assert_eq!(check(&[no_answer(), mismatch()], true), None);
    }

    #[test]
    fn a_secret_that_nobody_shares_fails() {
        assert_eq!(check(&[mismatch(), mismatch()], false), Some(4));
        assert_eq!(check(&[mismatch(), mismatch()], true), Some(4));
    }

    #[test]
    fn a_participant_has_invited_nobody() {
        assert_eq!(check(&[], false), None);
    }

    #[test]
    fn outcomes_have_reasons() {
        let check = |result: Outcome, expected, reason: &str| {
            assert_eq!(outcome(&result), (expected, reason.to_owned()));
        };
        check(Ok(()), InviteOutcome::Joined, "joined");
        check(no_answer(), InviteOutcome::NoAnswer, "no answer after 1.5 s");
        check(mismatch(), InviteOutcome::Refused, "secrets differ");
        let refused = InviteError::Refused { name: name(), reason: "cannot".to_owned() };
        check(Err(refused), InviteOutcome::Refused, "cannot");
        check(Err(InviteError::Closed), InviteOutcome::Refused, "the session is over");
    }
}
