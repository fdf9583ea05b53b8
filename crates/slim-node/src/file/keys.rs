//! The keys of the node's file, from the top down to a server entry. `tls.rs`, `auth.rs`
//! and `peers.rs` have those below.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use slim_node::{Endpoint, Keepalive, NodeConfig, PeersConfig};
use tracing::Level;

use super::auth::AuthKeys;
use super::peers::{ClientKeys, PeersKeys};
use super::setting::mapping;
use super::telemetry::TelemetryKeys;
use super::tls::ServerTlsKeys;
use super::value::{AtLeast, Named, shown};
use super::{DEFAULT_LOG_LEVEL, DEFAULT_THREAD_NAME, MIN_QUEUE_BYTES};

mapping! {
    /// The file of a node.
    pub(super) struct FileKeys {
        /// What is logged.
        tracing: TracingKeys,
        /// The process.
        runtime: RuntimeKeys,
        /// One service, `slim/` and a name of a-z, 0-9 and -.
        services: Named<ServiceKeys>,
    }
}

mapping! {
    /// What is logged.
    pub(super) struct TracingKeys {
        /// How much is logged; `--log` overrides it, SIGHUP reads it again.
        log_level: Option<Level> = DEFAULT_LOG_LEVEL.as_str().to_ascii_lowercase(),
        /// Traces and metrics; see docs/operations.md.
        opentelemetry: TelemetryKeys,
    }
    ignored {
        display_thread_names: "lines of the log name no threads",
        display_thread_ids: "lines of the log name no threads",
        filters: "all modules of the node log at `log_level`",
    }
}

mapping! {
    /// The process.
    pub(super) struct RuntimeKeys {
        /// Threads; 0 is as many as there are cores.
        n_cores: Option<AtLeast<0>> = 0,
        /// What they are called.
        thread_name: Option<String> = DEFAULT_THREAD_NAME,
        /// How long links may take to end.
        drain_timeout: Option<Duration> = shown(NodeConfig::default().drain_timeout),
        /// Where the node is looked at over HTTP; see docs/operations.md. Who
        /// reaches it sees all names. Default nowhere; `--admin` overrides it.
        admin: Option<SocketAddr>,
    }
}

mapping! {
    /// The node.
    pub(super) struct ServiceKeys {
        /// Id, which others know the node by. Default `node-` and a new UUID;
        /// `--node-id` overrides it.
        node_id: Option<String>,
        /// Group of nodes: a peer that says another one is refused. Default none.
        domain_name: Option<String>,
        /// Links.
        dataplane: DataplaneKeys,
        /// Other nodes; see docs/mesh.md. `--peer` overrides it.
        peers: Option<PeersKeys>,
    }
    checked {
        /// The control plane.
        controller: ControllerKeys,
    }
    ignored {
        default_gateway: "a node has no applications of its own whose messages it could send there",
    }
    refused {
        auth: "the control plane is not supported yet",
    }
}

mapping! {
    /// The control plane, which may be there as long as it is empty.
    pub(super) struct ControllerKeys {}
    refused {
        servers: "the control plane is not supported yet",
        clients: "the control plane is not supported yet",
    }
}

mapping! {
    /// Links.
    pub(super) struct DataplaneKeys {
        /// Where to listen. One at least, unless there is `--listen`, which overrides it.
        servers: Vec<ServerKeys>,
        /// Nodes that are dialled, and relay.
        clients: Vec<ClientKeys>,
        /// The policy: file that says which names are whose. Default none, and every link
        /// may have any name. `--policy` overrides it, SIGHUP reads it again.
        policy: Option<PathBuf>,
        /// What bounds what; SIGHUP reads it again. docs/node.md says what happens when a
        /// limit is reached.
        limits: LimitKeys,
    }
    refused {
        outbound_clients: "only dataplane.clients are supported",
        enforce_pqc: "enforcing it is not supported yet",
    }
}

mapping! {
    /// What bounds what.
    pub(super) struct LimitKeys {
        /// TCP connections; `--max-connections` overrides it.
        connections: Option<AtLeast<1, usize>> = NodeConfig::default().max_connections,
        /// Those of them on which no link is up yet.
        unnegotiated_connections: Option<AtLeast<1, usize>>
            = NodeConfig::default().max_unnegotiated_connections,
        /// Names that one link may subscribe to.
        subscriptions_per_link: Option<AtLeast<1, usize>>
            = NodeConfig::default().max_subscriptions_per_link,
        /// Names that one peer may announce. Counts from the next start.
        names_per_peer: Option<AtLeast<1, usize>> = PeersConfig::default().max_names_per_peer,
        /// Bytes of data that may wait for one subscriber.
        queued_bytes_per_link: Option<AtLeast<MIN_QUEUE_BYTES, usize>>
            = NodeConfig::default().queue_bytes,
        /// Bytes of data that may wait for all, not counting the first 64 KiB of each.
        queued_bytes: Option<AtLeast<0, usize>> = NodeConfig::default().max_queued_bytes,
        /// Messages that are read from one link in a second; 0 is as many as there are.
        /// `--max-rate` overrides it.
        messages_per_second_per_link: Option<AtLeast<0, u32>>
            = NodeConfig::default().max_messages_per_second.map_or(0, |rate| rate.get()),
        /// How long publishers wait for a subscriber whose queue is full.
        slow_subscriber_grace: Option<Duration>
            = shown(NodeConfig::default().slow_subscriber_grace),
    }
}

mapping! {
    /// An address to listen on.
    pub(super) struct ServerKeys {
        /// The address; port 0 picks one.
        endpoint: Endpoint,
        /// TLS on this address. It needs a certificate or `insecure: true`, unless the
        /// address is a Unix socket.
        tls: ServerTlsKeys,
        /// What a dialler has to show. Default nothing.
        auth: Option<AuthKeys>,
        /// Whether each message needs a valid MAC; of all entries, the first one's counts.
        require_header_mac: Option<bool> = NodeConfig::default().require_header_mac,
        /// Seconds that a connection may take to open a stream, and a stream to negotiate;
        /// of all entries, the first one's counts.
        negotiation_timeout_secs: Option<AtLeast<1>>
            = NodeConfig::default().negotiation_timeout.as_secs(),
        /// `negotiation_timeout_secs`, in an older spelling.
        link_hmac_timeout_secs: Option<AtLeast<1>>,
        /// When a silent application is gone; of all entries, the first one's counts.
        keepalive: KeepaliveKeys,
    }
    ignored {
        http2_only: "links are HTTP/2, or WebSockets on an address of their own",
        link_hmac_poll_interval_ms: "nothing is polled",
        max_concurrent_streams: "a connection carries 100 links",
        max_frame_size: "frames and buffers have the size that suits the node",
        max_header_list_size: "it is bounded already",
        metadata: "it is for the control plane",
        read_buffer_size: "as `max_frame_size`",
        write_buffer_size: "as `max_frame_size`",
    }
}

mapping! {
    /// When a silent application is gone.
    pub(super) struct KeepaliveKeys {
        /// Time between two signs of life that are asked for; more than 0.
        time: Option<Duration> = shown(Keepalive::default().interval),
        /// How long each may take; more than 0.
        timeout: Option<Duration> = shown(Keepalive::default().timeout),
        /// Age at which a connection gets no further links; more than 0.
        max_connection_age: Option<Duration> = shown(Keepalive::default().max_connection_age),
    }
    ignored {
        max_connection_idle: "links last for hours without a word",
        max_connection_age_grace: "a link is never cut for its age",
    }
}
