//! `slim group` in a container: given lines, and read event by event.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use testcontainers::ImageExt as _;
use testcontainers::bollard::query_parameters::AttachContainerOptions;
use tokio::io::{AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::judge::Account;
use crate::program::Program;
use crate::site::{Network, Site};
use crate::{until, within};

/// Only ever used on the networks of a test.
const SECRET: &str = "the-secret-of-a-conversation-that-everybody-may-hear";

/// A member of a group, or somebody who waits to become one.
pub struct Member {
    /// Its container.
    pub program: Program,
    /// Its name without id.
    pub address: String,
    stdin: Pin<Box<dyn AsyncWrite + Send>>,
    account: Arc<Mutex<Account>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Member {
    /// Starts `slim group` with further options at a node, on a network that has it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(
        site: &Site,
        name: &str,
        network: &Network,
        node: &str,
        args: &[&str],
    ) -> Self {
        let address = format!("agntcy/ns/{name}");
        let command = ["/usr/bin/slim", "group", "--output=json", "--local", &address];
        let command: Vec<&str> = command.iter().chain(args).copied().collect();
        let program = Program::start(site, name, network, |request| {
            request
                .with_cmd(command)
                .with_env_var("SLIM_SLIM", node)
                .with_env_var("SLIM_SHARED_SECRET", SECRET)
                .with_open_stdin(true)
        })
        .await;
        let options = AttachContainerOptions { stream: true, stdin: true, ..Default::default() };
        let attached = site.docker.attach_container(program.id(), Some(options)).await;
        let stdin = attached.expect("its stdin is open").input;
        let account = Arc::default();
        listen(&program, Arc::clone(&account));
        Self { program, address, stdin, account }
    }

    /// What it was given to say and told so far.
    #[must_use]
    pub fn account(&self) -> Account {
        lock(&self.account).clone()
    }

    /// It is cut off so long that others may be told that it does not have a line.
    pub fn cut_off(&self) {
        lock(&self.account).was_cut_off = true;
    }

    /// Has it publish a line.
    ///
    /// # Panics
    /// If it does not read.
    pub async fn say(&mut self, line: &str) {
        // Before it can be told about.
        lock(&self.account).said.push(line.to_owned());
        self.command(line).await;
    }

    /// Gives it a line that it does not publish.
    ///
    /// # Panics
    /// If it does not read.
    pub async fn command(&mut self, line: &str) {
        let line = format!("{line}\n");
        let write = async {
            self.stdin.write_all(line.as_bytes()).await.expect("it reads");
            self.stdin.flush().await.expect("it reads");
        };
        within("reading a line", write).await;
    }

    /// Waits until it has heard a line.
    ///
    /// # Panics
    /// If it does not.
    pub async fn until_heard(&self, line: &str) {
        self.until_told("message", |event| event["payload"] == line).await;
    }

    /// Waits until it has told a change of another member, such as `offline`.
    ///
    /// # Panics
    /// If it does not.
    pub async fn until_presence(&self, name: &str, change: &str) {
        let is_it = |event: &Value| event["name"] == name && event["change"] == change;
        self.until_told("participant", is_it).await;
    }

    /// Waits until it has told an event of a kind for which `is_it` is true, and returns
    /// the first one.
    ///
    /// # Panics
    /// If it does not.
    pub async fn until_told(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let look = async || {
            let account = lock(&self.account);
            let event = account.events(kind).find(|event| is_it(event)).cloned();
            event.ok_or_else(|| format!("it told {:?}", account.events))
        };
        until(&format!("{kind} at {}", self.address), look).await
    }
}

/// Reads what it tells, until it has ended.
fn listen(program: &Program, account: Arc<Mutex<Account>>) {
    let mut lines = program.container.stdout(true).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let event = serde_json::from_str(&line)
                .unwrap_or_else(|_| json!({"event": "unreadable", "line": line}));
            let mut account = lock(&account);
            if event["event"] == "connected" {
                event["name"].as_str().unwrap_or_default().clone_into(&mut account.name);
            }
            account.events.push(event);
        }
    });
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    // Whoever panicked has only read, or pushed.
    account.lock().unwrap_or_else(PoisonError::into_inner)
}
