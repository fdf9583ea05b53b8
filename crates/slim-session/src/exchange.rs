//! A command is sent until everybody who should has answered, or its time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slim_proto::{Command, Name, NameId, RouteName};

/// Number of an exchange, unique in its session.
pub(crate) type ExchangeId = u64;

/// A command as it is sent, and sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) destination: Name,
    pub(crate) fanout: u32,
    pub(crate) command: Command,
    /// The metadata entry `LEAVING_SESSION`.
    pub(crate) leaving: bool,
}

/// When a request is repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) period: Duration,
    /// Transmissions after the first.
    pub(crate) retries: u32,
}

#[derive(Debug)]
struct Exchange<P> {
    purpose: P,
    request: Request,
    pace: Pace,
    /// Ids under which it was sent. A receiver of the reference drops a copy with
    /// a known id unanswered, so a copy has a new one and any of them may be
    /// answered.
    ids: Vec<u32>,
    missing: BTreeSet<RouteName>,
    left: u32,
    due_at: Duration,
}

/// What an answer did.
#[derive(Debug, PartialEq)]
pub(crate) enum Answered<P> {
    /// Nobody asked, or not this one.
    Unasked,
    /// Others are still missing.
    Partly(P),
    /// That was the last one.
    Completed(P),
}

/// What is to be done when a deadline has come.
#[derive(Debug)]
pub(crate) enum Due<P> {
    /// Send it again under the id that [`Exchanges::sent`] is told.
    Repeat(ExchangeId, Request),
    /// Its time is up. These have not answered.
    Failed(P, Vec<RouteName>),
}

/// The open exchanges of a session.
#[derive(Debug)]
pub(crate) struct Exchanges<P> {
    open: BTreeMap<ExchangeId, Exchange<P>>,
    by_message: BTreeMap<u32, ExchangeId>,
    next: ExchangeId,
}

impl<P> Default for Exchanges<P> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), by_message: BTreeMap::new(), next: 0 }
    }
}

impl<P: Clone + PartialEq> Exchanges<P> {
    /// Opens an exchange that is to be sent now under `message_id`. `missing` are
    /// those who have to answer; a name without id is answered by any instance.
    pub(crate) fn open(
        &mut self,
        at: Duration,
        purpose: P,
        request: Request,
        pace: Pace,
        message_id: u32,
        missing: impl IntoIterator<Item = RouteName>,
    ) -> ExchangeId {
        let id = self.next;
        self.next += 1;
        let exchange = Exchange {
            purpose,
            request,
            pace,
            ids: vec![message_id],
            missing: missing.into_iter().collect(),
            left: pace.retries,
            due_at: at + pace.period,
        };
        self.by_message.insert(message_id, id);
        self.open.insert(id, exchange);
        id
    }

    /// A copy went out under this id.
    pub(crate) fn sent(&mut self, id: ExchangeId, message_id: u32) {
        if let Some(exchange) = self.open.get_mut(&id) {
            exchange.ids.push(message_id);
            self.by_message.insert(message_id, id);
        }
    }

    /// This many copies more are sent of what was sent under this id, at most.
    pub(crate) fn hasten(&mut self, message_id: u32, retries: u32) {
        let id = self.by_message.get(&message_id);
        if let Some(exchange) = id.and_then(|id| self.open.get_mut(id)) {
            exchange.left = exchange.left.min(retries);
        }
    }

    /// The id under which it was sent first.
    pub(crate) fn first_id(&self, id: ExchangeId) -> Option<u32> {
        self.open.get(&id)?.ids.first().copied()
    }

    /// Whose exchange this message id is.
    pub(crate) fn purpose_of(&self, message_id: u32) -> Option<&P> {
        let id = self.by_message.get(&message_id)?;
        self.open.get(id).map(|exchange| &exchange.purpose)
    }

    /// `source` answered `message_id`.
    pub(crate) fn answer(&mut self, message_id: u32, source: &Name) -> Answered<P> {
        let Some(&id) = self.by_message.get(&message_id) else {
            return Answered::Unasked;
        };
        self.answered(id, source.route())
    }

    fn answered(&mut self, id: ExchangeId, source: RouteName) -> Answered<P> {
        let Some(exchange) = self.open.get_mut(&id) else {
            return Answered::Unasked;
        };
        let any = RouteName { id: NameId::ANY, ..source };
        if !exchange.missing.remove(&source) && !exchange.missing.remove(&any) {
            return Answered::Unasked;
        }
        let purpose = exchange.purpose.clone();
        if !exchange.missing.is_empty() {
            return Answered::Partly(purpose);
        }
        self.close(id);
        Answered::Completed(purpose)
    }

    /// This one needs no longer answer: it is gone, or showed otherwise that it
    /// knows. Gives the exchanges among those with such a purpose that are
    /// complete because of it.
    pub(crate) fn excuse(&mut self, who: &Name, which: impl Fn(&P) -> bool) -> Vec<P> {
        let concerned: Vec<ExchangeId> = (self.open.iter())
            .filter(|(_, exchange)| which(&exchange.purpose))
            .map(|(id, _)| *id)
            .collect();
        concerned
            .into_iter()
            .filter_map(|id| match self.answered(id, who.route()) {
                Answered::Completed(purpose) => Some(purpose),
                Answered::Unasked | Answered::Partly(_) => None,
            })
            .collect()
    }

    /// Forgets the exchanges with such a purpose.
    pub(crate) fn cancel(&mut self, which: impl Fn(&P) -> bool) {
        let ids: Vec<ExchangeId> = (self.open.iter())
            .filter(|(_, exchange)| which(&exchange.purpose))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.close(id);
        }
    }

    /// Whether one with such a purpose is open.
    pub(crate) fn any(&self, which: impl Fn(&P) -> bool) -> bool {
        self.open.values().any(|exchange| which(&exchange.purpose))
    }

    fn close(&mut self, id: ExchangeId) -> Option<Exchange<P>> {
        let exchange = self.open.remove(&id)?;
        for message_id in &exchange.ids {
            self.by_message.remove(message_id);
        }
        Some(exchange)
    }

    /// What is due.
    pub(crate) fn due(&mut self, at: Duration) -> Vec<Due<P>> {
        let ids: Vec<ExchangeId> = (self.open.iter())
            .filter(|(_, exchange)| exchange.due_at <= at)
            .map(|(id, _)| *id)
            .collect();
        let mut due = Vec::new();
        for id in ids {
            let Some(exchange) = self.open.get_mut(&id) else { continue };
            if exchange.left == 0 {
                if let Some(exchange) = self.close(id) {
                    let missing = exchange.missing.into_iter().collect();
                    due.push(Due::Failed(exchange.purpose, missing));
                }
            } else {
                exchange.left -= 1;
                exchange.due_at = at + exchange.pace.period;
                due.push(Due::Repeat(id, exchange.request.clone()));
            }
        }
        due
    }

    /// The link is back: everything is sent again at once and has all its
    /// retries again.
    pub(crate) fn resume(&mut self, at: Duration) {
        for exchange in self.open.values_mut() {
            exchange.due_at = at;
            exchange.left = exchange.pace.retries.saturating_add(1);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.open.values().map(|exchange| exchange.due_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { period: Duration::from_secs(1), retries: 2 };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn one(missing: &[&str]) -> Exchanges<&'static str> {
        let mut exchanges = Exchanges::default();
        let request = Request {
            destination: name("a/b/c"),
            fanout: 1,
            command: Command::LeaveRequest,
            leaving: false,
        };
        let missing = missing.iter().map(|text| name(text).route());
        exchanges.open(Duration::ZERO, "purpose", request, PACE, 1, missing);
        exchanges
    }

    fn instance(text: &str) -> Name {
        name(text).with_id(NameId(5))
    }

    #[test]
    fn completes_when_all_have_answered() {
        let mut exchanges = one(&["a/b/x", "a/b/y"]);
        assert_eq!(exchanges.answer(2, &name("a/b/x")), Answered::Unasked);
        assert_eq!(exchanges.answer(1, &name("a/b/z")), Answered::Unasked);
        assert_eq!(exchanges.answer(1, &name("a/b/x")), Answered::Partly("purpose"));
        assert_eq!(exchanges.answer(1, &name("a/b/x")), Answered::Unasked);
        assert_eq!(exchanges.answer(1, &name("a/b/y")), Answered::Completed("purpose"));
        assert_eq!(exchanges.next_deadline(), None);
        assert!(exchanges.by_message.is_empty());
    }

    #[test]
    fn any_instance_answers_for_a_name_without_id() {
        let mut exchanges = one(&["a/b/x"]);
        assert_eq!(exchanges.answer(1, &instance("a/b/x")), Answered::Completed("purpose"));
    }

    #[test]
    fn repeats_then_fails_and_any_copy_may_be_answered() {
        let mut exchanges = one(&["a/b/x"]);
        let at = Duration::from_secs;
        assert!(exchanges.due(Duration::from_millis(999)).is_empty());
        let [Due::Repeat(id, _)] = exchanges.due(at(1))[..] else { panic!("no repeat") };
        exchanges.sent(id, 2);
        assert!(matches!(exchanges.due(at(2))[..], [Due::Repeat(..)]));
        assert_eq!(exchanges.next_deadline(), Some(at(3)));
        let missing = vec![name("a/b/x").route()];
        match &exchanges.due(at(3))[..] {
            [Due::Failed("purpose", who)] => assert_eq!(who, &missing),
            other => panic!("{other:?}"),
        }
        assert_eq!(exchanges.answer(2, &name("a/b/x")), Answered::Unasked);
    }

    #[test]
    fn a_link_that_is_back_gives_all_retries_again() {
        let mut exchanges = one(&["a/b/x"]);
        exchanges.due(Duration::from_secs(1));
        exchanges.due(Duration::from_secs(2));
        exchanges.resume(Duration::from_secs(60));
        for second in 60..63 {
            let due = exchanges.due(Duration::from_secs(second));
            assert!(matches!(due[..], [Due::Repeat(..)]), "{second}");
        }
        assert!(matches!(exchanges.due(Duration::from_secs(63))[..], [Due::Failed(..)]));
    }

    #[test]
    fn who_is_gone_need_not_answer() {
        let mut exchanges = one(&["a/b/x", "a/b/y"]);
        assert!(exchanges.excuse(&name("a/b/x"), |_| true).is_empty());
        assert!(exchanges.excuse(&name("a/b/y"), |_| false).is_empty());
        assert_eq!(exchanges.excuse(&name("a/b/y"), |_| true), ["purpose"]);
    }
}
