//! Being told to stop: SIGINT, SIGTERM, SIGHUP, and ctrl-c at a prompt.
//!
//! The first is a request that the conversation sees; the second ends the process
//! at once, whatever it is waiting for.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::output::LastWords;
use crate::terminal;

/// Counts the requests to stop. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    last_words: LastWords,
    requests: watch::Sender<u32>,
    /// Signals that we sent to ourselves and that nobody has taken yet.
    own: Arc<AtomicUsize>,
}

impl Stop {
    /// Listens to the signals from now on. Needs a running tokio runtime.
    ///
    /// # Errors
    /// If a signal cannot be listened to.
    pub(crate) fn listen(last_words: LastWords) -> io::Result<Self> {
        let requests = watch::Sender::new(0);
        let stop = Self { last_words, requests, own: Arc::default() };
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            tokio::spawn(stop.clone().count(signal(kind)?, kind));
        }
        Ok(stop)
    }

    async fn count(self, mut signal: Signal, kind: SignalKind) {
        while signal.recv().await.is_some() {
            if kind != SignalKind::interrupt() || !self.take_own() {
                self.request();
            }
        }
    }

    /// Somebody wants the process to end. The second time it does so here.
    pub(crate) fn request(&self) {
        let mut requests = 0;
        self.requests.send_modify(|count| {
            *count += 1;
            requests = *count;
        });
        if requests > 1 {
            terminal::restore();
            self.last_words.say(&Failure::Interrupted);
            process::exit(Failure::Interrupted.status().into());
        }
    }

    /// Done when a request was made.
    pub(crate) fn requested(&self) -> impl Future<Output = ()> + use<> {
        let mut requests = self.requests.subscribe();
        async move {
            // `self` or a clone of it lives as long as the signals are listened to.
            requests.wait_for(|count| *count > 0).await.ok();
        }
    }

    /// Sends SIGINT to this process, which ends a prompt, without its counting as
    /// a request.
    pub(crate) fn interrupt_prompt(&self) {
        self.own.fetch_add(1, Ordering::SeqCst);
        let sent =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
        if sent.is_err() {
            self.take_own();
        }
    }

    /// True if the signal that arrived is one of our own.
    pub(crate) fn take_own(&self) -> bool {
        self.own.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |own| own.checked_sub(1)).is_ok()
    }
}
