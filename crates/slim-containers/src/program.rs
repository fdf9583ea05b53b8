//! One program of the image, in a container.

use std::process::Command;
use std::thread;
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::HealthStatusEnum;
use testcontainers::bollard::query_parameters::KillContainerOptions;
use testcontainers::core::{CmdWaitFor, ExecCommand};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, Healthcheck, ImageExt as _};

use crate::site::{LABEL, Network, Site};
use crate::{until, within};

/// A container that runs, or ran. Removed when dropped.
#[derive(Debug)]
pub struct Program {
    pub(crate) container: ContainerAsync<GenericImage>,
    docker: Docker,
    /// What it is called on its networks.
    pub host: String,
}

impl Program {
    /// Starts what `adapt` makes of the image, on a network.
    ///
    /// # Panics
    /// If it cannot be started, for example because there is no image.
    pub(crate) async fn start(
        site: &Site,
        name: &str,
        network: &Network,
        adapt: impl FnOnce(ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage>,
    ) -> Self {
        let host = format!("{}-{name}", site.id);
        let request = GenericImage::new("slim", "latest")
            .with_container_name(&host)
            .with_network(&network.0)
            .with_label(LABEL, &site.id);
        let container = adapt(request).start().await;
        let container = container.expect("it starts; `cargo xtask image` builds the image");
        Self { container, docker: site.docker.clone(), host }
    }

    /// The engine's id of its container.
    pub fn id(&self) -> &str {
        self.container.id()
    }

    /// Sends it a signal, such as `SIGTERM`.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn signal(&self, signal: &str) {
        let options = KillContainerOptions { signal: signal.to_owned() };
        self.docker.kill_container(self.id(), Some(options)).await.expect("it runs");
    }

    /// Starts it again, once it has ended.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn restart(&self) {
        self.container.start().await.expect("it starts again");
    }

    /// Has it stand still.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn pause(&self) {
        self.container.pause().await.expect("it pauses");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it does not stand still.
    pub async fn unpause(&self) {
        self.container.unpause().await.expect("it goes on");
    }

    /// Its status, once it has ended by itself or by a signal.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn ended(&self) -> i64 {
        let look = async || {
            let status = self.container.exit_code().await.map_err(|error| error.to_string())?;
            status.ok_or_else(|| "it runs".to_owned())
        };
        until(&format!("the end of {}", self.host), look).await
    }

    /// Waits until its health check says so.
    ///
    /// # Panics
    /// If that does not happen in time.
    pub async fn until_health(&self, wanted: HealthStatusEnum) {
        let look = async || {
            let inspected = self.docker.inspect_container(self.id(), None).await;
            let state = inspected.map_err(|error| error.to_string())?.state;
            let health = state.and_then(|state| state.health?.status);
            if health == Some(wanted) { Ok(()) } else { Err(format!("it is {health:?}")) }
        };
        until(&format!("{wanted:?}: {}", self.host), look).await;
    }

    /// Runs another program of the image beside it: its status and its stdout.
    ///
    /// # Panics
    /// If the container does not run.
    pub async fn ask(&self, command: &[&str]) -> (i64, String) {
        let command = ExecCommand::new(command.iter().copied())
            .with_cmd_ready_condition(CmdWaitFor::seconds(0));
        let asked = within("asking", self.container.exec(command));
        let mut asked = asked.await.expect("it runs");
        let answer = within("an answer", asked.stdout_to_vec());
        let answer = answer.await.expect("its answer can be read");
        let status = until("the end of a command", async || {
            let status = asked.exit_code().await.map_err(|error| error.to_string())?;
            status.ok_or_else(|| "it runs".to_owned())
        });
        (status.await, String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What it logged, for whoever asks why the test failed.
        if thread::panicking() {
            let logs = ["logs", "--tail", "40", self.id()];
            // Without it there is still the panic.
            Command::new("docker").args(logs).status().ok();
        }
    }
}

/// The image's own check, made every second.
pub(crate) fn quick_check() -> Healthcheck {
    Healthcheck::empty().with_interval(Duration::from_secs(1)).with_retries(1)
}
