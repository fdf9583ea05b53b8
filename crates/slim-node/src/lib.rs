//! The SLIM routing node: an embeddable library and the `slim-node` program.
//!
//! Applications open links to a node and subscribe to names; the node passes what
//! is published to a name on to its subscribers. It never looks inside a payload
//! and never rewrites what the sender signed.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use slim_node::{Node, NodeConfig};
//!
//! let node = Node::bind(NodeConfig::default()).await?;
//! println!("listening on {}", node.local_addrs()[0]);
//! node.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Decisions are in [`table`](RouteTable), `router` and `peers`, which do no IO; `server`
//! carries them out. [`NodeConfig::peers`] joins nodes, so that applications of one reach
//! those of the others.

mod admin;
mod auth;
mod config;
mod dialler;
mod families;
mod guard;
mod limits;
mod links;
mod mesh;
mod metrics;
mod peering;
mod peers;
mod policy;
mod rate;
mod router;
mod server;
mod subscriber;
mod table;
mod telemetry;
mod view;

pub use auth::LinkAuth;
pub use config::{
    Backoff, DEFAULT_MAX_NAMES_PER_PEER, DEFAULT_MAX_SUBSCRIPTIONS, DEFAULT_PORT, NodeConfig,
    PeerConfig, PeersConfig,
};
pub use limits::NodeLimits;
pub use metrics::{Dropped, Metrics, MetricsSnapshot};
pub use peers::Topology;
pub use policy::{
    Action, Decision, NamePattern, NamePatternError, Policy, PolicyHandle, PrincipalPattern,
    PrincipalPatternError, Rule,
};
pub use server::{BindError, Node};
pub use slim_link::{
    Authenticator, Authorization, Certificates, ClientTls, DEFAULT_RELOAD_INTERVAL, Endpoint,
    EndpointError, Keepalive, KeyPair, ListenConfig, ListenError, Pem, Principal, PrincipalError,
    ServerTls, Target, TargetError, TlsConfigError, TlsVersion,
};
pub use table::{LinkRoutes, RoutePlace, RouteTable, SubscriptionError};
