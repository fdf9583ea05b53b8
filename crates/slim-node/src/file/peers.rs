//! The keys `peers`, `domain_name` and `dataplane.clients`: other nodes.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slim_identity::LinkCredentials;
use slim_node::{
    Authorization, Backoff, ClientTls, KeyPair, PeerConfig, PeersConfig, Pem, Target, Topology,
};

use super::section::{ConfigError, Section};
use super::tls;

/// Keys of a client entry that others know.
const WITHOUT_EFFECT: [&str; 9] = [
    "buffer_size",
    "compression",
    "connect_timeout",
    "keepalive",
    "link_id",
    "metadata",
    "rate_limit",
    "request_timeout",
    "require_header_mac",
];

/// What the file says of other nodes; none if it says nothing.
pub(super) fn read(
    service: &mut Section,
    dataplane: &mut Section,
    node_id: Option<&str>,
    ignored: &mut Vec<String>,
) -> Result<Option<PeersConfig>, ConfigError> {
    let domain_name = service.text("domain_name")?.unwrap_or_default();
    let mut config = PeersConfig { domain_name, ..PeersConfig::default() };
    let peers = service.optional("peers")?;
    let is_mesh = match &peers {
        None => false,
        Some(_) if node_id.is_none() => {
            return Err(service.unsupported("node_id", "required, for peers know each other by it"));
        }
        Some(_) => true,
    };
    config.topology = Topology::Relay;
    if let Some(peers) = peers {
        read_peers(peers, &mut config, ignored)?;
    }
    for mut entry in dataplane.list("clients")? {
        if config.topology == Topology::FullMesh {
            let reason = "in a full mesh all nodes are peers.discovery.peers; \
                          or say peers.topology: relay";
            return Err(dataplane.unsupported("clients", reason));
        }
        match entry.text("connection_type")?.as_deref() {
            Some("peer") => {}
            Some("remote") => {
                return Err(
                    entry.unsupported("connection_type", "the control plane is not supported yet")
                );
            }
            _ => {
                let reason = "a node has no applications of its own, so that an edge link carries \
                              nothing: say connection_type: peer, at both ends";
                return Err(entry.unsupported("connection_type", reason));
            }
        }
        let peer = read_peer(&mut entry, ignored)?;
        if peer.target.is_none() {
            return Err(entry.unsupported("endpoint", "required"));
        }
        config.peers.push(peer);
        entry.deny_rest()?;
    }
    if !is_mesh && config.peers.is_empty() {
        if !config.domain_name.is_empty() {
            // It joins peers, and there are none.
            ignored.push(service.path_of("domain_name"));
        }
        return Ok(None);
    }
    Ok(Some(config))
}

fn read_peers(
    mut peers: Section,
    config: &mut PeersConfig,
    ignored: &mut Vec<String>,
) -> Result<(), ConfigError> {
    config.topology = match peers.text("topology")?.as_deref() {
        None | Some("full_mesh") => Topology::FullMesh,
        Some("relay") => Topology::Relay,
        Some(other) => {
            let reason = format!("{other:?} is neither full_mesh nor relay");
            return Err(peers.unsupported("topology", &reason));
        }
    };
    let mut discovery = peers.section("discovery")?;
    match discovery.text("type")?.as_deref() {
        Some("static") => {}
        Some("kubernetes") => {
            let reason = "discovery in Kubernetes is not supported: list the nodes, by the names \
                          of a headless service, with type: static";
            return Err(discovery.unsupported("type", reason));
        }
        _ => return Err(discovery.unsupported("type", "required: static")),
    }
    for mut entry in discovery.list("peers")? {
        let peer = read_peer(&mut entry, ignored)?;
        if peer.node_id.is_none() {
            return Err(entry.unsupported("node_id", "required"));
        }
        entry.ignore("connection_type", ignored);
        entry.deny_rest()?;
        config.peers.push(peer);
    }
    discovery.deny_rest()?;
    peers.deny_rest()
}

fn read_peer(entry: &mut Section, ignored: &mut Vec<String>) -> Result<PeerConfig, ConfigError> {
    let node_id = entry.text("node_id")?;
    let principal =
        entry.parsed("principal", "basic:USER, jwt:SUBJECT, spiffe://DOMAIN/PATH or dns:NAME")?;
    let target: Option<Target> = match entry.text("endpoint")? {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|error| entry.unsupported("endpoint", &format!("{error}")))?)
        }
    };
    let is_tls = target.as_ref().is_some_and(Target::is_tls);
    let is_unix = target.as_ref().is_some_and(|target| target.to_string().starts_with("unix:"));
    let tls =
        tls::read_client(entry.section("tls")?, target.is_none() || is_unix, is_tls, ignored)?;
    let tls = ClientTls { server_name: entry.text("server_name")?, ..tls };
    let authorization = read_auth(entry)?;
    let backoff = read_backoff(entry.section("backoff")?, ignored)?;
    entry.refuse("proxy", "proxies are not supported")?;
    entry.refuse("headers", "headers of one's own are not supported")?;
    entry.refuse("origin", "it is always the host of the address")?;
    for key in WITHOUT_EFFECT {
        entry.ignore(key, ignored);
    }
    Ok(PeerConfig { node_id, target, tls, authorization, principal, backoff })
}

/// What the other node is shown.
fn read_auth(entry: &mut Section) -> Result<Option<Authorization>, ConfigError> {
    let Some(auth) = entry.value("auth") else { return Ok(None) };
    let credentials = LinkCredentials::from_config(auth);
    let credentials = credentials.map_err(|reason| entry.itself(&reason))?;
    Ok(credentials.map(|credentials| {
        Authorization::new(move || {
            // Before 1970 no token is good.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            credentials.header(now.as_secs()).map_err(|error| error.to_string())
        })
    }))
}

/// `{ type: exponential, base: MILLISECONDS, max_delay }` or
/// `{ type: fixed_interval, interval }`.
fn read_backoff(mut section: Section, ignored: &mut Vec<String>) -> Result<Backoff, ConfigError> {
    let mut backoff = Backoff::default();
    match section.text("type")?.as_deref() {
        None => {}
        Some("exponential") => {
            if let Some(base) = section.at_least("base", 1)? {
                backoff.first = Duration::from_millis(base);
            }
            backoff.most = section.duration("max_delay")?.unwrap_or(backoff.most);
            // It is always twice as long, with a random part.
            section.ignore("factor", ignored);
            section.ignore("jitter", ignored);
        }
        Some("fixed_interval") => {
            if let Some(interval) = section.duration("interval")? {
                backoff = Backoff { first: interval, most: interval };
            }
        }
        Some(other) => {
            let reason = format!("{other:?} is neither exponential nor fixed_interval");
            return Err(section.unsupported("type", &reason));
        }
    }
    if backoff.first.is_zero() || backoff.most < backoff.first {
        return Err(section.itself("the first wait must be more than 0, and the last no less"));
    }
    // A peer is never given up.
    section.ignore("max_attempts", ignored);
    section.deny_rest()?;
    Ok(backoff)
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
    use crate::file::{FileConfig, parse};

    fn read(service: &str, dataplane: &str) -> Result<FileConfig, String> {
        let text = format!(
            "services: {{ slim/0: {{ node_id: a, {service} dataplane: {{ servers: \
             [ {{ endpoint: '0.0.0.0:1', tls: {{ insecure: true }} }} ], {dataplane} }} }} }}"
        );
        parse(&text, &|_| unreachable!("nothing is referred to")).map_err(|e| e.to_string())
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
            (entry("auth: { type: spire }"), String::new(), "peers[0]: \"auth.type\" is none of"),
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
        let nameless = "services: { slim/0: { peers: {} } }";
        let error = parse(nameless, &|_| unreachable!("nothing is referred to")).unwrap_err();
        assert_eq!(
            error.to_string(),
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
