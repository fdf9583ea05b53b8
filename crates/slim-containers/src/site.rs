//! The place of one test: networks of its own, and somebody who tidies up.

use std::collections::HashMap;
use std::env;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use testcontainers::core::client::docker_client_instance;

use crate::program::Program;

/// Label of everything that a test starts; its value is the [`Site`].
pub(crate) const LABEL: &str = "slim.site";

/// Waits until whoever holds the other end of its input is gone, and removes what has
/// the label: containers first, since networks with some cannot be removed.
const TIDY_UP: &str = r#"
cat >/dev/null
docker ps --all --quiet --filter "label=$1" | xargs --no-run-if-empty docker rm --force >/dev/null
docker network ls --quiet --filter "label=$1" | xargs --no-run-if-empty docker network rm >/dev/null
"#;

/// A network, by what the engine calls it.
#[derive(Clone, Debug)]
pub struct Network(pub(crate) String);

/// What one test has on the engine.
///
/// A process beside the test removes all of it when the test is over, has panicked, or
/// was killed: it notices by the end of a pipe. It has a process group of its own, so
/// ctrl-c does not reach it.
#[derive(Debug)]
pub struct Site {
    pub(crate) docker: Docker,
    pub(crate) id: String,
    tidier: Child,
}

impl Site {
    /// A new one.
    ///
    /// # Panics
    /// If there is no engine.
    pub async fn new() -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let id = format!("slim-{}-{number}", process::id());
        let mut tidier = Command::new("sh");
        tidier.args(["-c", TIDY_UP, "sh", &format!("{LABEL}={id}")]);
        // `cargo xtask containers` puts something in front of the engine that may be gone
        // by then.
        if let Some(engine) = env::var_os("SLIM_CONTAINERS_ENGINE") {
            tidier.env("DOCKER_HOST", engine);
        }
        let tidier = tidier.process_group(0).stdin(Stdio::piped()).spawn();
        let tidier = tidier.expect("there is a shell");
        let docker = docker_client_instance().await.expect("there is a container engine");
        Self { docker, id, tidier }
    }

    /// Makes a network.
    ///
    /// # Panics
    /// If the engine does not make it.
    pub async fn network(&self, name: &str) -> Network {
        let name = format!("{}-{name}", self.id);
        let labels = Some(HashMap::from([(LABEL.to_owned(), self.id.clone())]));
        let request = NetworkCreateRequest { name: name.clone(), labels, ..Default::default() };
        self.docker.create_network(request).await.expect("a network is made");
        Network(name)
    }

    /// Plugs a program into a network, or in again.
    ///
    /// # Panics
    /// If it is in already.
    pub async fn plug(&self, program: &Program, network: &Network) {
        let request =
            NetworkConnectRequest { container: program.id().to_owned(), ..Default::default() };
        self.docker.connect_network(&network.0, request).await.expect("it can be plugged in");
    }

    /// Pulls its plug: what it sends is gone, and so is what is sent to it. Nobody is told.
    ///
    /// # Panics
    /// If it is not in that network.
    pub async fn unplug(&self, program: &Program, network: &Network) {
        let container = program.id().to_owned();
        let request = NetworkDisconnectRequest { container, force: None };
        self.docker.disconnect_network(&network.0, request).await.expect("it can be unplugged");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.tidier.stdin.take());
        let ended = self.tidier.wait();
        if !ended.as_ref().is_ok_and(ExitStatus::success) {
            // A panic would hide the reason for which the test fails, and there is nobody
            // else to tell if stderr is closed.
            writeln!(io::stderr(), "not all of {} is removed: {ended:?}", self.id).ok();
        }
    }
}
