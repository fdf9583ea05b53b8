//! A node to talk over, and `slim` processes whose events can be awaited.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use slim_node::{Authenticator, Endpoint, ListenConfig, Node, NodeConfig, Policy, ServerTls};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub(crate) const SECRET: &str = "a secret of more than 32 bytes, shared by all";
pub(crate) const OTHER_SECRET: &str = "a different secret, also more than 32 bytes";

/// How long anything may take. Long, because two cores run all tests at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node in this process.
pub(crate) struct TestNode {
    address: SocketAddr,
    admin: SocketAddr,
    tls: Option<ServerTls>,
    auth: Option<Arc<dyn Authenticator>>,
    policy: Option<Policy>,
    runtime: Runtime,
    running: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

impl TestNode {
    pub(crate) fn start() -> Self {
        Self::start_with(None, None)
    }

    pub(crate) fn start_with(tls: Option<ServerTls>, auth: Option<Arc<dyn Authenticator>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let policy = None;
        let mut node = Self { address, admin: address, tls, auth, policy, runtime, running: None };
        node.restart();
        node
    }

    /// From now on this policy counts; all links end.
    pub(crate) fn restart_with(&mut self, policy: Policy) {
        self.stop();
        self.policy = Some(policy);
        self.restart();
    }

    /// `http://host:port`, or `https` with TLS.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where it can be looked at.
    pub(crate) fn admin(&self) -> String {
        self.admin.to_string()
    }

    /// All links end, and nobody listens any more.
    pub(crate) fn stop(&mut self) {
        if let Some((shutdown, ended)) = self.running.take() {
            shutdown.send(()).unwrap();
            self.runtime.block_on(ended).unwrap();
        }
    }

    /// Listens on the same address (again), with nothing remembered.
    pub(crate) fn restart(&mut self) {
        let listen = ListenConfig {
            endpoint: Endpoint::Tcp(self.address),
            tls: self.tls.clone(),
            auth: self.auth.clone(),
        };
        let admin = Some(self.admin);
        let policy = self.policy.clone();
        let config = NodeConfig { listen: vec![listen], admin, policy, ..NodeConfig::default() };
        let node = self.runtime.block_on(Node::bind(config)).unwrap();
        self.address = node.local_addrs()[0];
        self.admin = node.admin_addr().unwrap();
        let (shutdown, until_shutdown) = oneshot::channel::<()>();
        let ended = self.runtime.spawn(async move {
            node.run(async { until_shutdown.await.unwrap_or(()) }).await.unwrap();
        });
        self.running = Some((shutdown, ended));
    }
}

/// The command, without any variable that it would read.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slim"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLIM_") {
            command.env_remove(name);
        }
    }
    command
}

/// A `slim` process with `--output json`, killed when dropped.
pub(crate) struct Slim {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
    /// What was read so far, to show when something does not come.
    seen: Vec<String>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: Option<i32>,
    pub(crate) stderr: String,
    /// The events that nobody had awaited.
    pub(crate) rest: Vec<Value>,
}

impl Slim {
    /// Starts `slim LINE` with the usual secret, and timers short enough for tests.
    pub(crate) fn start(node: &TestNode, line: &str) -> Self {
        Self::start_with(node, line, |_| {})
    }

    /// The same, after `change`.
    pub(crate) fn start_with(
        node: &TestNode,
        line: &str,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        Self::start_at(&node.url(), line, change)
    }

    /// The same, with the node at this address.
    pub(crate) fn start_at(url: &str, line: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command();
        command
            .args(line.split_whitespace())
            .args(["--slim", url, "--output", "json"])
            .env("SLIM_SHARED_SECRET", SECRET)
            .env("SLIM_TIMEOUT", "0.5")
            .env("SLIM_MAX_RETRIES", "3");
        change(&mut command);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let input = child.stdin.take();
        Self { child, input, lines, errors: Some(errors), seen: Vec::new() }
    }

    /// Writes a line.
    pub(crate) fn type_line(&mut self, line: &str) {
        self.type_bytes(format!("{line}\n").as_bytes());
    }

    pub(crate) fn type_bytes(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    /// Ends its input.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Stops it, as a debugger would, and returns when it stands still.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let pid = Pid::from_child(&self.child);
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    /// The next event, whatever it is; `None` if there will be none.
    fn next(&mut self, deadline: Instant, awaited: &str) -> Option<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.seen.push(line.clone());
                let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
                    panic!("not a JSON line ({error}): {line}");
                });
                assert!(event["event"].is_string() && event["time"].is_string(), "{line}");
                Some(event)
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                panic!("no {awaited}, only:\n{}", self.seen.join("\n"))
            }
        }
    }

    /// Waits for an event of this kind, passing over others.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        self.expect_where(kind, |_| true)
    }

    /// Waits for an event of this kind with this property, passing over others.
    pub(crate) fn expect_where(&mut self, kind: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.expect_any(kind, |event| event["event"] == kind && is(event))
    }

    fn expect_any(&mut self, awaited: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(event) = self.next(deadline, awaited) else {
                panic!("ended without {awaited}:\n{}\n{:?}", self.seen.join("\n"), self.finish());
            };
            if is(&event) {
                return event;
            }
        }
    }

    /// What became of this line, whether it was passed over already or is to come.
    pub(crate) fn outcome(&mut self, line: u64) -> Value {
        self.told("outcome", |event| {
            (event["event"] == "delivered" || event["event"] == "lost") && event["line"] == line
        })
    }

    /// The first event of which this is true, whether it was passed over already or
    /// is to come.
    pub(crate) fn told(&mut self, awaited: &str, is: impl Fn(&Value) -> bool) -> Value {
        let seen: Vec<Value> =
            self.seen.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        match seen.into_iter().find(&is) {
            Some(event) => event,
            None => self.expect_any(awaited, is),
        }
    }

    /// Waits for a message with this payload, passing over others.
    pub(crate) fn expect_message(&mut self, payload: &str) -> Value {
        self.expect_where("message", |event| event["payload"] == payload)
    }

    /// The messages among all events so far, as sender and text.
    pub(crate) fn messages(&self) -> Vec<(String, String)> {
        self.seen
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["event"] == "message")
            .map(|event| {
                (app(&event["source"]).to_owned(), event["payload"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    /// Waits for an error with this code.
    pub(crate) fn expect_error(&mut self, code: &str) -> Value {
        self.expect_where("error", |event| event["code"] == code)
    }

    /// Waits for the end.
    pub(crate) fn exit(mut self) -> Exit {
        self.finish()
    }

    fn finish(&mut self) -> Exit {
        let deadline = Instant::now() + PATIENCE;
        let mut rest = Vec::new();
        while let Some(event) = self.next(deadline, "end of output") {
            rest.push(event);
        }
        // Its output is closed, so it is about to end.
        let status = self.child.wait().unwrap();
        let stderr = self.errors.take().unwrap().join().unwrap();
        Exit { status: status.code(), stderr, rest }
    }

    /// Waits for the end, which must be a good one with nothing on standard error.
    pub(crate) fn exit_well(self) -> Vec<Value> {
        let exit = self.exit();
        assert_eq!((exit.status, exit.stderr.as_str()), (Some(0), ""), "{exit:?}");
        exit.rest
    }
}

impl Drop for Slim {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Exit {
    /// It failed with this status, one line on standard error, and the error event
    /// as its last.
    pub(crate) fn assert_failed(&self, status: i32, code: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        let last = self.rest.last().unwrap();
        assert_eq!((&last["event"], &last["code"]), (&"error".into(), &code.into()), "{self:?}");
    }
}

/// The readable part of a full name in an event.
pub(crate) fn app(name: &Value) -> &str {
    let name = name.as_str().unwrap();
    let (app, id) = name.rsplit_once('/').unwrap();
    assert_eq!(id.len(), 36, "{name} has no id");
    app
}

/// The readable parts of a list of full names, sorted.
pub(crate) fn apps(names: &Value) -> Vec<String> {
    let mut apps: Vec<String> =
        names.as_array().unwrap().iter().map(|name| app(name).to_owned()).collect();
    apps.sort();
    apps
}
