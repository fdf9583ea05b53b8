//! `slim-node` in a container.

use serde_json::Value;
use testcontainers::bollard::models::HealthStatusEnum;
use testcontainers::{ContainerRequest, GenericImage, ImageExt as _};

use crate::program::{Program, quick_check};
use crate::site::{Network, Site};
use crate::until;

/// Where applications and peers find it.
const PORT: u16 = 46357;

/// Its admin address, which only programs in the same container reach.
const ADMIN: &str = "127.0.0.1:46358";

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its container.
    pub program: Program,
}

impl Node {
    /// Starts one as the image starts it, and waits until it is healthy.
    ///
    /// # Panics
    /// If it does not become so.
    pub async fn start(site: &Site, network: &Network) -> Self {
        let adapt = |request: ContainerRequest<_>| request.with_health_check(quick_check());
        Self::start_with(site, "node", network, adapt).await
    }

    /// Starts one of several that know each other, each on `backbone` and a network of
    /// its own applications, and waits until all are up and joined.
    ///
    /// # Panics
    /// If they are not.
    pub async fn start_mesh(site: &Site, backbone: &Network, networks: &[Network]) -> Vec<Self> {
        let name = |number| format!("node-{number}");
        let peers: Vec<String> = (0..networks.len())
            .map(|number| format!("--peer={0}=http://{1}-{0}:{PORT}", name(number), site.id))
            .collect();
        let mut nodes = Vec::new();
        for (number, network) in networks.iter().enumerate() {
            let name = name(number);
            let mut command = vec![
                "/usr/bin/slim-node".to_owned(),
                format!("--listen=0.0.0.0:{PORT}"),
                format!("--admin={ADMIN}"),
                format!("--node-id={name}"),
            ];
            command.extend_from_slice(&peers);
            let adapt = |request: ContainerRequest<_>| {
                request.with_cmd(command).with_health_check(quick_check())
            };
            let program = Program::start(site, &name, backbone, adapt).await;
            site.plug(&program, network).await;
            nodes.push(Self { program });
        }
        for node in &nodes {
            node.until_healthy().await;
        }
        Self::until_joined(&nodes).await;
        nodes
    }

    /// As [`Self::start`], with the image's command and check unless `adapt` changes them.
    ///
    /// # Panics
    /// If it does not become healthy.
    pub async fn start_with(
        site: &Site,
        name: &str,
        network: &Network,
        adapt: impl FnOnce(ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage>,
    ) -> Self {
        let node = Self { program: Program::start(site, name, network, adapt).await };
        node.until_healthy().await;
        node
    }

    /// What `--slim` takes.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://{}:{PORT}", self.program.host)
    }

    /// Waits until it is healthy.
    ///
    /// # Panics
    /// If it does not become so.
    pub async fn until_healthy(&self) {
        self.program.until_health(HealthStatusEnum::HEALTHY).await;
    }

    /// Asks it to end, waits until it has, and starts it again.
    ///
    /// # Panics
    /// If it does not end well, or is not healthy again.
    pub async fn restart(&self) {
        self.program.signal("SIGTERM").await;
        assert_eq!(self.program.ended().await, 0, "{} drained", self.program.host);
        self.program.restart().await;
        self.until_healthy().await;
    }

    /// Waits until each of them has a link to each other one.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn until_joined(nodes: &[Self]) {
        for node in nodes {
            let look = async || {
                let peers = node.links("peer").await?.len();
                if peers + 1 == nodes.len() { Ok(()) } else { Err(format!("it has {peers} peers")) }
            };
            until(&format!("the peers of {}", node.program.host), look).await;
        }
    }

    /// What `slim top` shows of its links of a type.
    ///
    /// # Errors
    /// If the node does not tell.
    pub async fn links(&self, kind: &str) -> Result<Vec<Value>, String> {
        let top = ["/usr/bin/slim", "top", "--once", "--output=json", "--admin", ADMIN];
        let (status, answer) = self.program.ask(&top).await;
        let top: Value = serde_json::from_str(&answer)
            .map_err(|error| format!("slim top: status {status}, {error}: {answer}"))?;
        let links = top["links"].as_array().ok_or_else(|| format!("no links in {top}"))?;
        Ok(links.iter().filter(|link| link["type"] == kind).cloned().collect())
    }

    /// Asks whether it is ready, as the health check does: the status.
    ///
    /// # Panics
    /// If its container does not run.
    pub async fn health(&self) -> i64 {
        self.program.ask(&["/usr/bin/slim-node", "--health", ADMIN]).await.0
    }
}
