//! The one task of a client: link, commands and time in, the engine's outputs out.
//!
//! It decides nothing about the protocol. What it adds is reconnecting, and bounds:
//! while [`MAX_UNSENT`] messages wait for the link, nothing more is taken in.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slim_link::{
    DialConfig, DialError, Link, LinkEnd, LinkReceiver, LinkSender, SendError, Target, dial,
};
use slim_proto::{Message, SessionId};
use slim_session::{
    Command, CreateError, Done, Endpoint, Input, Now, Output, RequestId, SessionEvent, SessionInfo,
};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::client::{EVENT_QUEUE, Shared};
use crate::connect::describe;
use crate::session::{QUEUE_EVENTS, Queue, Queued, Session, weight};
use crate::telemetry::{Published, Telemetry};
use crate::{Client, ClientEvent};

/// Commands that wait for the driver; callers wait when it is full.
const REQUEST_QUEUE: usize = 256;
/// Sessions of others that wait to be listened for; one more is left at once.
const INVITED_QUEUE: usize = 128;
/// Messages that the link did not take yet. Beyond, nothing more is taken in.
const MAX_UNSENT: usize = 1024;
/// How long a shutdown waits for the link to take what is queued.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// What a handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Request {
    Command(Command, Answer),
    Shutdown(oneshot::Sender<()>),
}

/// Where the answer to a command goes.
#[derive(Debug)]
pub(crate) enum Answer {
    Created(oneshot::Sender<Result<Session, CreateError>>),
    Published {
        accepted: Option<oneshot::Sender<()>>,
        done: oneshot::Sender<Done>,
        published: Option<Published>,
    },
    Done(oneshot::Sender<Done>),
    /// Nobody waits.
    Nobody,
}

/// What a session's handle says without waiting. Each session says it at most
/// once per busy time, and once at its end, so the queue is bounded by their number.
/// The queue tells the session from a later one with the same number.
#[derive(Debug)]
pub(crate) enum Signal {
    Drained(SessionId, Arc<Queue>),
    Dropped(SessionId, Arc<Queue>),
}

/// A session of somebody else that waits to be listened for. It holds no handle of
/// the client, which would keep itself alive.
#[derive(Debug)]
pub(crate) struct Invited {
    pub(crate) info: SessionInfo,
    pub(crate) events: mpsc::Receiver<Queued>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) signals: mpsc::UnboundedSender<Signal>,
}

#[derive(Debug)]
struct Mailbox {
    info: SessionInfo,
    events: mpsc::Sender<Queued>,
    queue: Arc<Queue>,
}

pub(crate) struct Driver {
    endpoint: Endpoint,
    target: Target,
    config: DialConfig,
    link: LinkState,
    unsent: VecDeque<Message>,
    requests: mpsc::Receiver<Request>,
    signals: mpsc::UnboundedReceiver<Signal>,
    signal: mpsc::UnboundedSender<Signal>,
    invited: mpsc::Sender<Invited>,
    events: broadcast::Sender<ClientEvent>,
    client: Weak<Shared>,
    telemetry: Option<Arc<Telemetry>>,
    answers: BTreeMap<RequestId, Answer>,
    mailboxes: BTreeMap<SessionId, Mailbox>,
    ready: Option<oneshot::Sender<Result<(), String>>>,
    next_request: u64,
    /// What the engine is to be told next.
    inputs: VecDeque<Input>,
    origin: Instant,
}

enum LinkState {
    Up(LinkSender, Box<LinkReceiver>),
    Dialling(Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send>>, u32),
}

impl Driver {
    /// Starts the task. The receiver resolves when our name is subscribed, or to the
    /// node's reason why not.
    pub(crate) fn start(
        endpoint: Endpoint,
        target: Target,
        config: DialConfig,
        link: Link,
        telemetry: Option<Arc<Telemetry>>,
    ) -> (Client, oneshot::Receiver<Result<(), String>>) {
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (invited, invited_queue) = mpsc::channel(INVITED_QUEUE);
        let (signal, signals) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENT_QUEUE);
        let (ready, is_ready) = oneshot::channel();
        let shared = Arc::new(Shared {
            name: endpoint.name().clone(),
            node: target.to_string(),
            requests,
            invited: Mutex::new(invited_queue),
            events: events.clone(),
            telemetry: telemetry.clone(),
        });
        let (sender, receiver) = link.split();
        let driver = Self {
            target,
            config,
            link: LinkState::Up(sender, Box::new(receiver)),
            unsent: VecDeque::new(),
            requests: request_queue,
            signals,
            signal,
            invited,
            events,
            client: Arc::downgrade(&shared),
            telemetry,
            answers: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            ready: Some(ready),
            next_request: 0,
            inputs: VecDeque::new(),
            origin: Instant::now(),
            endpoint,
        };
        let span = info_span!("client", name = %shared.name);
        tokio::spawn(driver.run().instrument(span));
        (Client::new(shared), is_ready)
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Now { at: self.origin.elapsed(), unix }
    }

    async fn run(mut self) {
        self.feed(Input::LinkUp);
        loop {
            let deadline = self.endpoint.next_deadline().map(|at| self.origin + at);
            let has_room = self.unsent.len() < MAX_UNSENT;
            let input = tokio::select! {
                Some(signal) = self.signals.recv() => match signal {
                    Signal::Drained(id, queue) => {
                        self.is_current(id, &queue).then_some(Input::Busy(id, false))
                    }
                    Signal::Dropped(id, queue) => {
                        if self.is_current(id, &queue) { self.on_dropped(id) } else { None }
                    }
                },
                // Copies of what is still unsent would only make it longer.
                () = until(deadline), if has_room => Some(Input::Deadline),
                event = next_link_event(&mut self.link, &self.unsent, has_room) => {
                    match self.on_link(event) {
                        Step::Input(input) => Some(input),
                        Step::Nothing => None,
                        Step::Gone(reason) => return self.finish(reason),
                    }
                }
                request = self.requests.recv(), if has_room => match request {
                    Some(Request::Command(command, answer)) => {
                        Some(self.register(command, answer))
                    }
                    Some(Request::Shutdown(done)) => {
                        self.shutdown().await;
                        // Who asked may have stopped waiting.
                        done.send(()).ok();
                        return;
                    }
                    None => {
                        self.leave_all();
                        return self.shutdown().await;
                    }
                },
            };
            if let Some(input) = input {
                self.feed(input);
            }
        }
    }

    // ------------------------------------------------------------ in

    fn register(&mut self, command: Command, answer: Answer) -> Input {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.answers.insert(request, answer);
        Input::Command(request, command)
    }

    /// The last handle of all is gone: leave every session.
    fn leave_all(&mut self) {
        for session in std::mem::take(&mut self.mailboxes).into_keys() {
            let close = self.register(Command::Close { session }, Answer::Nobody);
            self.feed(close);
        }
    }

    fn is_current(&self, session: SessionId, queue: &Arc<Queue>) -> bool {
        let mailbox = self.mailboxes.get(&session);
        mailbox.is_some_and(|mailbox| Arc::ptr_eq(&mailbox.queue, queue))
    }

    /// The last handle of a session is gone: leave it.
    fn on_dropped(&mut self, session: SessionId) -> Option<Input> {
        self.mailboxes.remove(&session)?;
        Some(self.register(Command::Close { session }, Answer::Nobody))
    }

    fn on_link(&mut self, event: LinkEvent) -> Step {
        match event {
            LinkEvent::Received(message) => Step::Input(Input::Received(message)),
            LinkEvent::Sent => {
                self.unsent.pop_front();
                Step::Nothing
            }
            LinkEvent::TooLarge(len) => {
                warn!(len, "message too large for the link dropped");
                self.unsent.pop_front();
                Step::Nothing
            }
            LinkEvent::Ended(LinkEnd::PermissionDenied(reason)) => Step::Gone(reason),
            LinkEvent::Ended(end) => {
                let reason = describe(&end);
                info!(%reason, "link lost");
                if let Some(telemetry) = &self.telemetry {
                    telemetry.link_lost();
                }
                self.unsent.clear();
                self.link = LinkState::Dialling(self.dial(Duration::ZERO), 1);
                // Nobody needs to listen.
                self.events.send(ClientEvent::Disconnected { reason }).ok();
                Step::Input(Input::LinkDown)
            }
            LinkEvent::Dialled(Ok(link), _) => {
                info!("link is back");
                let (sender, receiver) = link.split();
                self.link = LinkState::Up(sender, Box::new(receiver));
                Step::Input(Input::LinkUp)
            }
            LinkEvent::Dialled(Err(error), _) if error.is_denied() => Step::Gone(describe(&error)),
            LinkEvent::Dialled(Err(error), attempt) => {
                debug!(attempt, error = describe(&error), "not connected");
                self.link = LinkState::Dialling(self.dial(backoff(attempt)), attempt + 1);
                Step::Nothing
            }
        }
    }

    fn dial(
        &self,
        after: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send>> {
        let (target, config) = (self.target.clone(), self.config.clone());
        Box::pin(async move {
            sleep(after).await;
            dial(&target, &config).await
        })
    }

    // ------------------------------------------------------------ out

    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            for output in self.endpoint.handle(self.now(), input) {
                self.carry_out(output);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.send(message),
            Output::Ready => match self.ready.take() {
                // Who waits for it may have given up.
                Some(ready) => drop(ready.send(Ok(()))),
                // Nobody needs to listen.
                None => drop(self.events.send(ClientEvent::Reconnected)),
            },
            Output::NotReady(reason) => match self.ready.take() {
                Some(ready) => drop(ready.send(Err(reason))),
                None => warn!(%reason, "the node does not take our name any more"),
            },
            Output::Accepted(request) => {
                if let Some(Answer::Published { accepted, .. }) = self.answers.get_mut(&request)
                    && let Some(accepted) = accepted.take()
                {
                    accepted.send(()).ok();
                }
            }
            Output::Done(request, done) => self.answer(request, done),
            Output::Session(info) => self.offer(info),
            Output::Event(id, event) => self.deliver(id, event),
            Output::IdentityMismatch(peer, reason) => {
                self.events.send(ClientEvent::IdentityMismatch { peer, reason }).ok();
            }
            Output::Declined(peer, reason) => {
                self.events.send(ClientEvent::Declined { peer, reason }).ok();
            }
            Output::Unbound(peer, reason) => {
                warn!(%peer, reason, "let through, as the identity binding says");
                self.events.send(ClientEvent::Unbound { peer, reason }).ok();
            }
        }
    }

    fn send(&mut self, message: Message) {
        let LinkState::Up(sender, _) = &self.link else { return };
        if !self.unsent.is_empty() {
            return self.unsent.push_back(message);
        }
        match sender.try_send(&message) {
            Ok(()) => {}
            Err(SendError::Full) => self.unsent.push_back(message),
            // The receiving half says so next.
            Err(SendError::Closed) => {}
            Err(SendError::TooLarge(len)) => warn!(len, "message too large for the link dropped"),
        }
    }

    /// Whoever asked may have stopped waiting, so a failing send is fine here.
    fn answer(&mut self, request: RequestId, done: Done) {
        match (self.answers.remove(&request), done) {
            (Some(Answer::Created(created)), Done::Created(result)) => {
                let session = result.and_then(|info| {
                    let closed = CreateError::Invite(slim_session::InviteError::Closed);
                    let client = self.client.upgrade().ok_or(closed)?;
                    Ok(Session::new(client, self.open_mailbox(info)))
                });
                created.send(session).ok();
            }
            (Some(Answer::Published { done: answer, published, .. }), done) => {
                if let (Some(telemetry), Some(published), Done::Published(outcome)) =
                    (&self.telemetry, published, &done)
                {
                    telemetry.done(published, outcome);
                }
                answer.send(done).ok();
            }
            (Some(Answer::Done(answer)), done) => {
                answer.send(done).ok();
            }
            (Some(Answer::Created(_) | Answer::Nobody) | None, _) => {}
        }
    }

    fn open_mailbox(&mut self, info: SessionInfo) -> Invited {
        let (events, queue_end) = mpsc::channel(QUEUE_EVENTS);
        let queue = Arc::new(Queue::default());
        let mailbox = Mailbox { info: info.clone(), events, queue: queue.clone() };
        self.mailboxes.insert(info.id, mailbox);
        Invited { info, events: queue_end, queue, signals: self.signal.clone() }
    }

    /// Somebody opened a session with us. Where nobody takes it, it is left.
    fn offer(&mut self, info: SessionInfo) {
        let id = info.id;
        let invited = self.open_mailbox(info);
        let queue = invited.queue.clone();
        if self.invited.try_send(invited).is_err() {
            warn!(session = %id, "left again: nobody listens for sessions");
            // We hold the receiver.
            self.signal.send(Signal::Dropped(id, queue)).ok();
        }
    }

    fn deliver(&mut self, id: SessionId, event: SessionEvent) {
        let Some(mailbox) = self.mailboxes.get(&id) else { return };
        let is_last = matches!(event, SessionEvent::Closed { .. });
        let weight = weight(&event);
        let queue = mailbox.queue.clone();
        queue.events.fetch_add(1, Ordering::SeqCst);
        queue.bytes.fetch_add(weight, Ordering::SeqCst);
        let span = match (&self.telemetry, &event) {
            (Some(telemetry), SessionEvent::Message(message)) => {
                telemetry.receive(&mailbox.info, message)
            }
            _ => None,
        };
        if mailbox.events.try_send((event, span)).is_err() {
            // Only events other than data can come to this, thousands of them unread.
            queue.events.fetch_sub(1, Ordering::SeqCst);
            queue.bytes.fetch_sub(weight, Ordering::SeqCst);
            warn!(session = %id, "event dropped: the application does not read");
        }
        if is_last {
            queue.over.store(true, Ordering::Release);
            self.mailboxes.remove(&id);
        } else if queue.is_high() && !queue.busy.swap(true, Ordering::SeqCst) {
            self.inputs.push_back(Input::Busy(id, true));
            // The application may have emptied it before it could see that we are busy.
            if queue.is_low() && queue.busy.swap(false, Ordering::SeqCst) {
                self.inputs.push_back(Input::Busy(id, false));
            }
        }
    }

    // ------------------------------------------------------------ the end

    /// Sends what is queued, for a moment, and closes the link.
    async fn shutdown(&mut self) {
        let LinkState::Up(sender, receiver) = &mut self.link else { return };
        let unsent = std::mem::take(&mut self.unsent);
        let drain = async {
            for message in &unsent {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
            sender.close();
            while receiver.recv().await.is_ok() {}
        };
        if timeout(SHUTDOWN_LIMIT, drain).await.is_err() {
            debug!("link closed with messages unsent");
        }
    }

    /// There will be no link any more.
    fn finish(mut self, reason: String) {
        warn!(%reason, "the node does not want us back");
        self.feed(Input::LinkGone);
        if let Some(ready) = self.ready.take() {
            ready.send(Err(reason.clone())).ok();
        }
        self.events.send(ClientEvent::Closed { reason }).ok();
    }
}

/// What the driver does next about the link.
enum Step {
    Input(Input),
    Nothing,
    Gone(String),
}

enum LinkEvent {
    Received(Message),
    Sent,
    TooLarge(usize),
    Ended(LinkEnd),
    Dialled(Result<Link, DialError>, u32),
}

/// The next thing that the link does: a message, the end, room for a message that
/// waits, or being back.
async fn next_link_event(
    link: &mut LinkState,
    unsent: &VecDeque<Message>,
    has_room: bool,
) -> LinkEvent {
    match link {
        LinkState::Dialling(dialling, attempt) => LinkEvent::Dialled(dialling.await, *attempt),
        LinkState::Up(sender, receiver) => {
            let sent = async {
                match unsent.front() {
                    Some(message) => sender.send(message).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = receiver.recv(), if has_room => match received {
                    Ok(message) => LinkEvent::Received(message),
                    Err(end) => LinkEvent::Ended(end),
                },
                sent = sent => match sent {
                    Ok(()) => LinkEvent::Sent,
                    Err(SendError::TooLarge(len)) => LinkEvent::TooLarge(len),
                    // The receiving half knows why.
                    Err(SendError::Closed | SendError::Full) => match receiver.recv().await {
                        Ok(message) => LinkEvent::Received(message),
                        Err(end) => LinkEvent::Ended(end),
                    },
                },
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Before the next attempt: a quarter of a second, then twice as long each time,
/// up to two seconds.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250 << attempt.saturating_sub(1).min(3))
}
