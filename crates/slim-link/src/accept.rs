//! The accepting side: listeners in, negotiated links out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use slim_proto::ConnectionType;
use tokio::net::TcpListener;

use crate::{DEFAULT_QUEUE_BYTES, FrameReader, Outbound};

/// How links are accepted.
#[derive(Clone, Debug)]
pub struct AcceptConfig {
    /// Own node id, announced to each peer.
    pub node_id: String,
    /// Whether each message with a header needs a valid MAC. Default true; without
    /// it, peers that offer no key get a link that anybody on the path can write to.
    pub require_header_mac: bool,
    /// From the opening of a stream to the end of its negotiation; also from
    /// accepting a connection to its first stream. Default 5 s, as everywhere.
    /// Shorter cuts off slow diallers, longer keeps silent ones.
    pub negotiation_timeout: Duration,
    /// Bytes that may wait to be sent on one link. Default [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// How long links may take to end after a shutdown before their connections
    /// are cut. Default 10 s.
    pub drain_timeout: Duration,
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self {
            node_id: format!("node-{}", uuid::Uuid::new_v4()),
            require_header_mac: true,
            negotiation_timeout: Duration::from_secs(5),
            queue_bytes: DEFAULT_QUEUE_BYTES,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Who is at the other end of an accepted link.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Chosen by the dialler, the same again on each of its reconnects.
    pub link_id: String,
    /// The dialler's own node id, as it claims.
    pub node_id: String,
    /// Peer group of the dialler, usually empty.
    pub deployment_name: String,
    /// Version of the dialler's protocol.
    pub slim_version: String,
    /// What kind of link the dialler wants.
    pub connection_type: ConnectionType,
    /// Where it comes from.
    pub peer_addr: SocketAddr,
    /// Whether the link has a key. Always true if MACs are required.
    pub has_mac: bool,
}

/// A link whose negotiation has succeeded.
#[derive(Debug)]
pub struct AcceptedLink {
    /// Who is there.
    pub info: LinkInfo,
    /// What arrives.
    pub frames: FrameReader,
    /// What goes out; clone it for whoever has something to send.
    pub outbound: Outbound,
}

/// Accepts links until `shutdown`, then drains.
///
/// For each negotiated link one task runs `on_link`; when it returns, the link is
/// closed ([`CloseReason::Done`](crate::CloseReason::Done)). On `shutdown` the
/// listeners are closed first, then every link: its [`FrameReader`] reports
/// [`LinkEnd::ClosedHere`](crate::LinkEnd::ClosedHere), what is queued goes out,
/// the stream ends with OK. What has not ended after
/// [`AcceptConfig::drain_timeout`] is cut and its task aborted, so this returns soon
/// after. Dropping the returned future cuts everything at once.
///
/// # Errors
/// If the server ends before `shutdown`. Failures of single connections are no
/// errors: they cost that connection only.
#[expect(clippy::unused_async, reason = "signature first")]
pub async fn serve<F, Fut>(
    listeners: Vec<TcpListener>,
    config: AcceptConfig,
    on_link: F,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    F: Fn(AcceptedLink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    drop((listeners, config, on_link, shutdown));
    Ok(())
}
