//! The keys `peers`, `domain_name` and `dataplane.clients`: other nodes.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use slim_identity::LinkCredentials;
use slim_node::{
    Authorization, Backoff, ClientTls, KeyPair, PeerConfig, PeersConfig, Pem, Principal, Target,
    Topology,
};

use super::client_auth::CredentialsKeys;
use super::error::ConfigError;
use super::setting::{Place, Setting, Shape, choice, mapping};
use super::tls::ClientTlsKeys;
use super::value::{AtLeast, Checked, shown};

mapping! {
    /// Other nodes.
    pub(super) struct PeersKeys {
        /// Whether all are each other's peers, or pass on what their neighbours say and send.
        topology: Option<Topology> = "full_mesh",
        /// Who they are.
        discovery: DiscoveryKeys,
    }
}

choice! {
    /// Who the other nodes are.
    pub(super) enum DiscoveryKeys {
        "static" => Static(StaticKeys),
    }
    refused {
        "kubernetes": "discovery in Kubernetes is not supported: list the nodes, by the names of \
                       a headless service, with type: static",
    }
}

mapping! {
    /// These.
    pub(super) struct StaticKeys {
        /// The nodes; the one that reads the file may be among them.
        peers: Vec<StaticPeerKeys>,
    }
}

mapping! {
    /// A peer.
    pub(super) struct StaticPeerKeys {
        /// Its id.
        node_id: String,
        /// Where it listens. Default nowhere: it has to dial.
        endpoint: Option<Target>,
    }
    flat {
        keys: PeerKeys,
    }
    ignored {
        connection_type: "it is always `peer`",
    }
}

mapping! {
    /// A node that is dialled.
    pub(super) struct ClientKeys {
        /// Its id. Default whoever answers.
        node_id: Option<String>,
        /// Where it listens.
        endpoint: Target,
    }
    flat {
        keys: PeerKeys,
    }
    checked {
        /// What kind of link it is.
        connection_type: PeerType,
    }
}

mapping! {
    /// How a node is dialled, and who it has to be.
    pub(super) struct PeerKeys {
        /// Who it has to be when it dials. Default one whose verified name is its id,
        /// where names are verified.
        principal: Option<Principal>,
        /// The name in its certificate. Default the host of `endpoint`.
        server_name: Option<String>,
        /// TLS to it.
        tls: ClientTlsKeys,
        /// What it is shown. Default nothing.
        auth: Option<Checked<CredentialsKeys>>,
        /// When it is dialled again.
        backoff: Option<BackoffKeys>,
    }
    ignored {
        buffer_size: "limits.queued_bytes_per_link counts here, too",
        compression: "nothing is compressed",
        connect_timeout: "each step of a dial has a limit",
        keepalive: "a node that is dialled is asked for a sign of life every minute",
        link_id: "the node makes one",
        metadata: "it is for the control plane",
        rate_limit: "a link between nodes has no limit of its own",
        request_timeout: "as `connect_timeout`",
        require_header_mac: "links between nodes have no MACs",
    }
    refused {
        proxy: "proxies are not supported",
        headers: "headers of one's own are not supported",
        origin: "it is always the host of the address",
    }
}

choice! {
    /// When a node is dialled again. A peer is never given up.
    pub(super) enum BackoffKeys {
        "exponential" => Exponential(ExponentialKeys),
        "fixed_interval" => Fixed(FixedKeys),
    }
}

mapping! {
    /// After twice as long each time, less a random part.
    pub(super) struct ExponentialKeys {
        /// The first time, in milliseconds.
        base: Option<AtLeast<1>> = Backoff::default().first.as_millis() as u64,
        /// The longest, also after a refusal.
        max_delay: Option<Duration> = shown(Backoff::default().most),
    }
    ignored {
        factor: "it is always 2",
        jitter: "there always is a random part",
        max_attempts: "a peer is never given up",
    }
}

mapping! {
    /// After as long each time, less a random part.
    pub(super) struct FixedKeys {
        /// The time.
        interval: Duration,
    }
    ignored {
        max_attempts: "a peer is never given up",
    }
}

/// The kind of link to a node that is dialled, which cannot be another one.
pub(super) struct PeerType;

/// The default of others, so who leaves the key out is told this, too.
const NO_EDGE: &str = "a node has no applications of its own, so that an edge link carries \
                       nothing: say connection_type: peer, at both ends";

impl Setting for PeerType {
    fn shape() -> Shape {
        let schema = serde_json::json!({ "const": "peer" });
        Shape::Value { words: "`peer`".to_owned(), schema }
    }

    fn absent(path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        Err(ConfigError::shape(path, NO_EDGE))
    }

    fn read(value: Value, path: &str, _: &mut Vec<String>) -> Result<Self, ConfigError> {
        match value.as_str() {
            Some("peer") => Ok(Self),
            Some("remote") => {
                Err(ConfigError::shape(path, "the control plane is not supported yet"))
            }
            _ => Err(ConfigError::shape(path, NO_EDGE)),
        }
    }
}

/// What the file says of other nodes.
pub(super) struct Nodes {
    pub(super) domain_name: Option<String>,
    pub(super) peers: Option<PeersKeys>,
    pub(super) clients: Vec<ClientKeys>,
}

impl Nodes {
    /// How this node, whose keys are at `service`, is joined to them; none if it is not.
    pub(super) fn config(
        self,
        service: &Place,
        dataplane: &Place,
        ignored: &mut Vec<String>,
    ) -> Result<Option<PeersConfig>, ConfigError> {
        let Self { domain_name, peers, clients } = self;
        if peers.is_none() && clients.is_empty() {
            // It joins peers, and there are none.
            service.ignore(&["domain_name"], ignored);
            return Ok(None);
        }
        let topology = match &peers {
            Some(peers) => peers.topology.unwrap_or_default(),
            None => Topology::Relay,
        };
        if topology == Topology::FullMesh && !clients.is_empty() {
            let reason = "in a full mesh all nodes are peers.discovery.peers; \
                          or say peers.topology: relay";
            return Err(dataplane.error_at("clients", reason));
        }
        let mut configs = Vec::new();
        if let Some(PeersKeys { discovery: DiscoveryKeys::Static(nodes), .. }) = peers {
            for StaticPeerKeys { node_id, endpoint, keys, .. } in nodes.peers {
                configs.push(keys.config(Some(node_id), endpoint, ignored)?);
            }
        }
        for ClientKeys { node_id, endpoint, keys, .. } in clients {
            configs.push(keys.config(node_id, Some(endpoint), ignored)?);
        }
        let domain_name = domain_name.unwrap_or_default();
        Ok(Some(PeersConfig { topology, domain_name, peers: configs, ..PeersConfig::default() }))
    }
}

impl PeerKeys {
    fn config(
        self,
        node_id: Option<String>,
        target: Option<Target>,
        ignored: &mut Vec<String>,
    ) -> Result<PeerConfig, ConfigError> {
        let Self { place, principal, server_name, tls, auth, backoff } = self;
        let is_tls = target.as_ref().is_some_and(Target::is_tls);
        let is_unix = target.as_ref().is_some_and(|target| target.to_string().starts_with("unix:"));
        let tls = tls.config(target.is_none() || is_unix, is_tls, ignored)?;
        let tls = ClientTls { server_name, ..tls };
        let credentials = auth.map(|auth| LinkCredentials::from_config(auth.value)).transpose();
        let credentials = credentials.map_err(|reason| place.error(reason))?;
        let authorization = credentials.flatten().map(|credentials| {
            Authorization::new(move || {
                // Before 1970 no token is good.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                credentials.header(now.as_secs()).map_err(|error| error.to_string())
            })
        });
        let backoff = backoff.map(|keys| keys.config()).unwrap_or_default();
        if backoff.first.is_zero() || backoff.most < backoff.first {
            let reason = "the first wait must be more than 0, and the last no less";
            return Err(place.error_at("backoff", reason));
        }
        Ok(PeerConfig { node_id, target, tls, authorization, principal, backoff })
    }
}

impl BackoffKeys {
    fn config(self) -> Backoff {
        let default = Backoff::default();
        match self {
            Self::Exponential(keys) => Backoff {
                first: keys.base.map_or(default.first, |base| Duration::from_millis(base.0)),
                most: keys.max_delay.unwrap_or(default.most),
            },
            Self::Fixed(keys) => Backoff { first: keys.interval, most: keys.interval },
        }
    }
}

/// A peer of an option: `ID=ADDR` for one that may have to be dialled, `ID` for one that
/// dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerOption {
    pub(crate) node_id: String,
    pub(crate) target: Option<Target>,
}

impl FromStr for PeerOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node_id, target) = match text.split_once('=') {
            None => (text, None),
            Some((node_id, target)) => {
                (node_id, Some(target.parse::<Target>().map_err(|error| error.to_string())?))
            }
        };
        if node_id.is_empty() || node_id.contains('/') {
            return Err("expected ID=ADDR, such as b=http://10.0.0.2:46357, or ID".to_owned());
        }
        Ok(Self { node_id: node_id.to_owned(), target })
    }
}

impl PeerOption {
    /// The peer, to be dialled with this certificate and trusted with these authorities.
    pub(crate) fn config(self, ca: Option<Pem>, identity: Option<KeyPair>) -> PeerConfig {
        let tls = ClientTls { ca, identity, ..ClientTls::default() };
        let Self { node_id, target } = self;
        PeerConfig { node_id: Some(node_id), target, tls, ..PeerConfig::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::FileConfig;
    use crate::file::tests::read as parse;

    fn read(service: &str, dataplane: &str) -> Result<FileConfig, String> {
        let text = format!(
            "services: {{ slim/0: {{ node_id: a, {service} dataplane: {{ servers: \
             [ {{ endpoint: '0.0.0.0:1', tls: {{ insecure: true }} }} ], {dataplane} }} }} }}"
        );
        parse(&text)
    }

    fn mesh(peers: &str) -> String {
        format!("peers: {{ discovery: {{ type: static, peers: [ {peers} ] }} }},")
    }

    #[test]
    fn a_full_mesh_is_read() {
        let service = mesh(
            "{ node_id: a, endpoint: 'http://a:1', tls: { insecure: true } }, \
             { node_id: b, endpoint: 'https://b:2', principal: 'dns:b', server_name: bee, \
               tls: { ca_source: { type: file, path: /ca }, tls_version: tls1.2, \
                      source: { type: file, cert: /c, key: /k } }, \
               auth: { type: basic, username: u, password: p }, keepalive: { timeout: 1s }, \
               backoff: { type: exponential, base: 50, max_delay: 2s, factor: 2 } }, \
             { node_id: c }, { node_id: d, endpoint: 'unix:///run/d.sock' }",
        );
        let config = read(&format!("domain_name: east, {service}"), "").unwrap();
        let peers = config.peers.unwrap();
        assert_eq!((peers.topology, peers.domain_name.as_str()), (Topology::FullMesh, "east"));
        let [a, b, c, d] = &peers.peers[..] else { panic!("{peers:?}") };
        assert_eq!(a.target.as_ref().unwrap().to_string(), "http://a:1");
        assert_eq!(b.principal, Some("dns:b".parse().unwrap()));
        assert_eq!(b.tls.server_name.as_deref(), Some("bee"));
        assert_eq!(b.tls.ca, Some(Pem::File("/ca".into())));
        assert!(b.tls.identity.is_some() && b.authorization.is_some());
        let (first, most) = (Duration::from_millis(50), Duration::from_secs(2));
        assert_eq!(b.backoff, Backoff { first, most });
        assert_eq!((c.node_id.as_deref(), &c.target), (Some("c"), &None));
        assert!(d.target.is_some());
        let path = "services.slim/0.peers.discovery.peers[1]";
        assert_eq!(config.ignored, [format!("{path}.backoff.factor"), format!("{path}.keepalive")]);
    }

    #[test]
    fn clients_that_are_peers_relay() {
        let client = "clients: [ { endpoint: 'http://b:1', connection_type: peer, \
                      tls: { insecure: true } } ]";
        let peers = read("", client).unwrap().peers.unwrap();
        assert_eq!((peers.topology, peers.peers.len()), (Topology::Relay, 1));
        assert_eq!(peers.peers[0].node_id, None);
        let relay = "peers: { topology: relay, discovery: { type: static, peers: \
                     [ { node_id: c } ] } },";
        let peers = read(relay, client).unwrap().peers.unwrap();
        assert_eq!((peers.topology, peers.peers.len()), (Topology::Relay, 2));
        let alone = read("domain_name: east,", "").unwrap();
        assert!(alone.peers.is_none());
        assert_eq!(alone.ignored, ["services.slim/0.domain_name"]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let entry = |keys: &str| mesh(&format!("{{ node_id: b, {keys} }}"));
        let client = |keys: &str| format!("clients: [ {{ endpoint: 'https://b:1', {keys} }} ]");
        for (service, dataplane, expected) in [
            (
                "peers: { discovery: { type: kubernetes, namespace: x } },".to_owned(),
                String::new(),
                "peers.discovery.type: discovery in Kubernetes is not supported",
            ),
            ("peers: {},".to_owned(), String::new(), "peers.discovery.type: required: static"),
            ("peers: { topology: star },".to_owned(), String::new(), "peers.topology: \"star\""),
            (mesh("{ endpoint: 'https://b:1' }"), String::new(), "peers[0].node_id: required"),
            (entry("endpoint: 'b'"), String::new(), "peers[0].endpoint: \"b\" is not an address"),
            (
                entry("endpoint: 'http://b:1'"),
                String::new(),
                "peers[0].tls: an address without TLS",
            ),
            (
                entry("endpoint: 'https://b:1', tls: { insecure: true }"),
                String::new(),
                "peers[0].tls.insecure: https:// is with TLS",
            ),
            (
                entry("endpoint: 'https://b:1', tls: { insecure_skip_verify: true }"),
                String::new(),
                "insecure_skip_verify: a certificate is never taken unchecked",
            ),
            (entry("principal: b"), String::new(), "peers[0].principal: \"b\" is not basic:USER"),
            (entry("proxy: { url: 'http://p' }"), String::new(), "peers[0].proxy: proxies are not"),
            (entry("auth: { type: spire }"), String::new(), "peers[0].auth.type: \"spire\" is not"),
            (
                entry("backoff: { type: fixed_interval, interval: 0s }"),
                String::new(),
                "peers[0].backoff: the first wait must be more than 0",
            ),
            (entry("endpont: x"), String::new(), "endpont: unknown key, did you mean endpoint?"),
            (
                mesh("{ node_id: b }"),
                client("connection_type: peer"),
                "dataplane.clients: in a full",
            ),
            (String::new(), client(""), "clients[0].connection_type: a node has no applications"),
            (
                String::new(),
                client("connection_type: remote"),
                "connection_type: the control plane",
            ),
            (String::new(), "outbound_clients: [ {} ]".to_owned(), "outbound_clients: only"),
        ] {
            let error = read(&service, &dataplane).unwrap_err();
            assert!(error.starts_with("services.slim/0."), "{error}");
            assert!(error.contains(expected), "{error} is not {expected}");
        }
        let nameless = "services: { slim/0: { peers: { discovery: { type: static } } } }";
        assert_eq!(
            parse(nameless).unwrap_err(),
            "services.slim/0.node_id: required, for peers know each other by it"
        );
    }

    #[test]
    fn a_peer_of_an_option_has_an_id_and_an_address_or_none() {
        let peer: PeerOption = "b=http://10.0.0.2:46357".parse().unwrap();
        assert_eq!((peer.node_id.as_str(), peer.target.is_some()), ("b", true));
        let peer: PeerOption = "b".parse().unwrap();
        assert_eq!((peer.node_id.as_str(), peer.target), ("b", None));
        for (text, reason) in [
            ("", "expected ID=ADDR"),
            ("=http://b:1", "expected ID=ADDR"),
            ("http://b:1", "expected ID=ADDR"),
            ("b=there", "\"there\" is not an address"),
        ] {
            let error = text.parse::<PeerOption>().unwrap_err();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }
}
