use slim_node::{KeyPair, Pem, ServerTls, TlsVersion};

use super::*;

fn resolve(reference: Reference<'_>) -> Result<String, String> {
    match reference {
        Reference::Env("PORT_ADDR") => Ok("127.0.0.1:1234".to_owned()),
        Reference::Env("SECS") => Ok("7".to_owned()),
        Reference::File("/id") => Ok("from-file".to_owned()),
        Reference::Env(name) => Err(format!("environment variable {name} is not set")),
        Reference::File(path) => Err(format!("cannot read {path}")),
    }
}

/// Reads a file, of which reader and schema have to think the same.
pub(super) fn read(text: &str) -> Result<FileConfig, String> {
    let config = parse(text, &resolve);
    if let Ok(value) = serde_saphyr::from_str(text) {
        schema::tests::agree(&schema::tests::NODE, &value, config.as_ref().err());
    }
    config.map_err(|error| error.to_string())
}

fn parsed(text: &str) -> FileConfig {
    read(text).unwrap()
}

fn error(text: &str) -> String {
    read(text).unwrap_err()
}

/// A file with one server entry.
fn server(entry: &str) -> String {
    format!("services: {{ slim/0: {{ dataplane: {{ servers: [ {entry} ] }} }} }}")
}

/// A file with these keys beside the data plane.
fn service(keys: &str) -> String {
    format!(
        "services: {{ slim/0: {{ {keys}, dataplane: {{ servers: \
         [ {{ endpoint: '0.0.0.0:1', tls: {{ insecure: true }} }} ] }} }} }}"
    )
}

/// A file with these keys in the data plane.
fn service_dataplane(keys: &str) -> String {
    format!("services: {{ slim/0: {{ dataplane: {{ {keys} }} }} }}")
}

#[test]
fn the_minimal_file_is_read() {
    let config = parsed(
        r#"
services:
  slim/0:
    node_id: slim-0
    dataplane:
      servers:
        - endpoint: "0.0.0.0:46357"
          tls: { insecure: true }
"#,
    );
    assert_eq!(config.node_id.as_deref(), Some("slim-0"));
    let [Server { listen, auth: None }] = &config.servers[..] else { panic!("{config:?}") };
    assert_eq!((listen.endpoint.to_string(), &listen.tls), ("0.0.0.0:46357".to_owned(), &None));
    assert_eq!(config.require_header_mac, None);
    assert_eq!(config.ignored, [""; 0]);
}

#[test]
fn a_full_file_is_read() {
    let config = parsed(
        r#"
tracing:
  log_level: debug
  display_thread_names: true
runtime:
  n_cores: 3
  thread_name: node
  drain_timeout: 1500ms
services:
  slim/a-1:
    node_id: "${file:/id}"
    controller: { servers: [], clients: [] }
    dataplane:
      clients: []
      enforce_pqc: false
      servers:
        - endpoint: "${env:PORT_ADDR}"
          tls: { insecure: true, tls_version: tls1.3 }
          require_header_mac: false
          negotiation_timeout_secs: "${env:SECS}"
          http2_only: true
        - endpoint: "[::1]:9"
          tls: { insecure: true }
          require_header_mac: true
"#,
    );
    assert_eq!(config.log_level, Some(Level::DEBUG));
    assert_eq!(config.worker_threads, Some(3));
    assert_eq!(config.thread_name.as_deref(), Some("node"));
    assert_eq!(config.drain_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(config.node_id.as_deref(), Some("from-file"));
    assert_eq!(
        config.servers.iter().map(|server| server.listen.endpoint.to_string()).collect::<Vec<_>>(),
        ["127.0.0.1:1234", "[::1]:9"]
    );
    assert_eq!(config.require_header_mac, Some(false), "the first entry rules");
    assert_eq!(config.negotiation_timeout, Some(Duration::from_secs(7)));
    let server = "services.slim/a-1.dataplane.servers";
    assert_eq!(
        config.ignored,
        [
            format!("{server}[0].http2_only"),
            format!("{server}[0].tls.tls_version"),
            format!("{server}[1].require_header_mac"),
            "tracing.display_thread_names".to_owned(),
        ]
    );
}

#[test]
fn where_telemetry_goes_is_read() {
    let text = service("node_id: a")
        + r#"
tracing:
  opentelemetry:
    enabled: true
    grpc:
      endpoint: "https://collector:4317"
      tls: { ca_source: { type: pem, data: "a CA" }, include_system_ca_certs_pool: true }
      server_name: other
      headers: { authorization: "${file:/id}" }
      connect_timeout: 5s
    service_name: node
    service_version: v1
    environment: test
    metrics_interval_secs: 30
"#;
    let file = parsed(&text);
    assert_eq!(file.telemetry.enabled, Some(true));
    assert_eq!(file.ignored, ["tracing.opentelemetry.grpc.connect_timeout"]);
    let config = file.telemetry.config("node-1").unwrap();
    assert_eq!(config.endpoint.as_deref(), Some("https://collector:4317"));
    assert_eq!((config.ca.as_deref(), config.system_roots), (Some(&b"a CA"[..]), true));
    assert_eq!(config.server_name.as_deref(), Some("other"));
    assert_eq!(config.headers, [("authorization".to_owned(), "from-file".to_owned())]);
    let called = (config.service_name.as_deref(), config.service_version.as_deref());
    assert_eq!(called, (Some("node"), Some("v1")));
    assert_eq!((&*config.instance, config.environment.as_deref()), ("node-1", Some("test")));
    assert_eq!(config.metrics_interval, Some(Duration::from_secs(30)));
    assert!(!format!("{file:?}").contains("from-file"), "{file:?}");

    let of = |keys: &str| service("node_id: a") + "\ntracing: { opentelemetry: " + keys + " }";
    let off = parsed(&of("{ enabled: false, grpc: { endpoint: 'what others take:1' } }"));
    assert_eq!(off.telemetry.enabled, Some(false));
    for (keys, expected) in [
        ("{ enabled: maybe }", "enabled: \"maybe\" is not true or false"),
        ("{ enable: true }", "enable: unknown key, did you mean enabled?"),
        ("{ grpc: {} }", "grpc.endpoint: required"),
        (
            "{ grpc: { endpoint: 'https://a:1', tls: { insecure: true } } }",
            "grpc.tls.insecure: https:// is with TLS: say http://",
        ),
        (
            "{ grpc: { endpoint: 'http://a:1', headers: { a: 1 } } }",
            "grpc.headers.a: expected a text; write it in quotes",
        ),
        ("{ metrics_interval_secs: 0 }", "metrics_interval_secs: 0 is less than 1"),
    ] {
        assert_eq!(error(&of(keys)), format!("tracing.opentelemetry.{expected}"));
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    let meant = |key| format!("unknown key, did you mean {key}?");
    for (text, path, expected) in [
        (service("node_id: a") + "\nlogging: {}", "logging", "unknown key".to_owned()),
        (service("node_id: a") + "\ntracing: { level: info }", "tracing.level", meant("log_level")),
        (service("node_id: a") + "\nruntime: { cores: 1 }", "runtime.cores", meant("n_cores")),
        (service("nodeid: a"), "services.slim/0.nodeid", meant("node_id")),
        (
            "services: { slim/0: { dataplane: { server: [] } } }".to_owned(),
            "services.slim/0.dataplane.server",
            meant("servers"),
        ),
        (
            server("{ endpoint: '0.0.0.0:1', tls: { insecure: true }, buffersize: 7 }"),
            "services.slim/0.dataplane.servers[0].buffersize",
            "unknown key, did you mean read_buffer_size?".to_owned(),
        ),
    ] {
        assert_eq!(error(&text), format!("{path}: {expected}"));
    }
}

#[test]
fn what_is_not_supported_is_refused_and_not_ignored() {
    for (text, path) in [
        (
            server("{ endpoint: '0.0.0.0:1', tls: { insecure: true }, auth: { type: spire } }"),
            "dataplane.servers[0].auth.type: \"spire\"",
        ),
        (service("controller: { clients: [ {} ] }"), "controller.clients: the control plane"),
        (
            "services: { slim/0: { dataplane: { enforce_pqc: true } } }".to_owned(),
            "dataplane.enforce_pqc",
        ),
    ] {
        let error = error(&text);
        assert!(error.starts_with(&format!("services.slim/0.{path}")), "{error}");
    }
}

#[test]
fn wrong_values_are_named() {
    for (text, expected) in [
        (
            "tracing: { log_level: loud }",
            "tracing.log_level: \"loud\" is not trace, debug, info, warn or error",
        ),
        ("runtime: { n_cores: -1 }", "runtime.n_cores: \"-1\" is not a whole number"),
        (
            "runtime: { drain_timeout: 10 }",
            "runtime.drain_timeout: \"10\" is not a duration such as 10s, 1500ms or 1h",
        ),
        ("runtime: []", "runtime: expected a mapping"),
        ("services: {}", "services: required, with one entry such as slim/0"),
        ("", "services: required, with one entry such as slim/0"),
        (
            "services: { slim/0: {}, slim/1: {} }",
            "services.slim/1: a second service is not supported",
        ),
        (
            "services: { slimy/0: {} }",
            "services.slimy/0: expected slim/ and a name of a-z, 0-9 and -",
        ),
        (
            "services: { slim/0: { node_id: '${env:NOPE}' } }",
            "services.slim/0.node_id: environment variable NOPE is not set",
        ),
        (
            "services: { slim/0: { dataplane: { servers: {} } } }",
            "services.slim/0.dataplane.servers: expected a list",
        ),
    ] {
        assert_eq!(error(text), expected);
    }
    let endpoint = error(&server("{ endpoint: 'localhost:1', tls: { insecure: true } }"));
    assert!(
        endpoint.contains("servers[0].endpoint: \"localhost:1\" is not a numeric"),
        "{endpoint}"
    );
    for (keys, expected) in [
        ("endpoint: 'wss://0.0.0.0:1', tls: { insecure: true }", "wss:// needs a certificate"),
        ("endpoint: 'ws://0.0.0.0:1', tls: { cert_file: a, key_file: b }", "and ws:// tls: {"),
    ] {
        let error = error(&server(&format!("{{ {keys} }}")));
        assert!(error.contains(expected), "{error}");
    }
    let web = parsed(&server("{ endpoint: 'ws://0.0.0.0:1/', tls: { insecure: true } }"));
    assert_eq!(web.servers[0].listen.endpoint.to_string(), "ws://0.0.0.0:1");
    let timeout = error(&server(
        "{ endpoint: '0.0.0.0:1', tls: { insecure: true }, negotiation_timeout_secs: 0 }",
    ));
    assert!(timeout.contains("negotiation_timeout_secs: 0 is less than 1"), "{timeout}");
}

#[test]
fn what_is_not_yaml_is_refused_with_its_line() {
    let error = error("services:\n  slim/0: {\n");
    assert!(error.contains("line"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn keepalive_is_read_from_the_first_entry() {
    let with =
        |keys: &str| server(&format!("{{ endpoint: 'unix:///run/s', keepalive: {{ {keys} }} }}"));
    assert_eq!(parsed(&with("")).keepalive, Keepalive::default());
    let config = parsed(&with(
        "time: 1m, timeout: 5s, max_connection_age: 1h, max_connection_age_grace: 5m",
    ));
    let expected = Keepalive {
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(5),
        max_connection_age: Duration::from_secs(3600),
    };
    assert_eq!(config.keepalive, expected);
    let path = "services.slim/0.dataplane.servers[0].keepalive";
    assert_eq!(config.ignored, [format!("{path}.max_connection_age_grace")]);
    assert_eq!(error(&with("time: 0s")), format!("{path}.time: must be more than 0"));
}

#[test]
fn limits_are_read() {
    let limits = |keys: &str| service_dataplane(&format!("limits: {{ {keys} }}"));
    assert_eq!(parsed(&limits("")).limits, Limits::default());
    let all = "connections: 5, unnegotiated_connections: 4, subscriptions_per_link: 3, names_per_peer: 9, \
               queued_bytes_per_link: 65536, queued_bytes: 0, messages_per_second_per_link: 2, \
               slow_subscriber_grace: 250ms";
    let expected = Limits {
        connections: Some(5),
        unnegotiated_connections: Some(4),
        subscriptions_per_link: Some(3),
        names_per_peer: Some(9),
        queued_bytes_per_link: Some(65536),
        queued_bytes: Some(0),
        messages_per_second_per_link: Some(2),
        slow_subscriber_grace: Some(Duration::from_millis(250)),
    };
    assert_eq!(parsed(&limits(all)).limits, expected);
    let path = "services.slim/0.dataplane.limits";
    for (keys, reason) in [
        ("connections: 0", "connections: 0 is less than 1"),
        ("queued_bytes_per_link: 16383", "queued_bytes_per_link: 16383 is less than 16384"),
        (
            "messages_per_second_per_link: 4294967296",
            "messages_per_second_per_link: 4294967296 is too large",
        ),
        ("conections: 1", "conections: unknown key, did you mean connections?"),
    ] {
        assert_eq!(error(&limits(keys)), format!("{path}.{reason}"));
    }
}

/// What a server entry with these keys under `tls` speaks.
fn tls(keys: &str) -> Option<ServerTls> {
    let mut config = parsed(&server(&format!("{{ endpoint: '0.0.0.0:1', tls: {{ {keys} }} }}")));
    config.servers.remove(0).listen.tls
}

fn files() -> ServerTls {
    ServerTls::new(KeyPair {
        certificate: Pem::File("/c.pem".into()),
        key: Pem::File("/k.pem".into()),
    })
}

#[test]
fn tls_is_read_in_both_spellings() {
    let source = "source: { type: file, cert: /c.pem, key: /k.pem }";
    assert_eq!(tls(source), Some(files()));
    assert_eq!(tls("cert_file: /c.pem, key_file: /k.pem"), Some(files()));
    assert_eq!(tls(&format!("insecure: true, {source}")), None, "insecure rules, as everywhere");

    let texts = ServerTls::new(KeyPair {
        certificate: Pem::Text("c".to_owned()),
        key: Pem::Text("k".to_owned()),
    });
    assert_eq!(tls("source: { type: pem, cert: c, key: k }"), Some(texts.clone()));
    assert_eq!(tls("cert_pem: c, key_pem: k"), Some(texts));

    let expected = ServerTls { client_ca: Some(Pem::File("/ca.pem".into())), ..files() };
    let client_ca = "client_ca: { type: file, path: /ca.pem }";
    assert_eq!(tls(&format!("{source}, {client_ca}")), Some(expected.clone()));
    assert_eq!(tls(&format!("{source}, client_ca_file: /ca.pem")), Some(expected));
    let expected = ServerTls { client_ca: Some(Pem::Text("ca".to_owned())), ..files() };
    let client_ca = "client_ca: { type: pem, data: ca }";
    assert_eq!(tls(&format!("{source}, {client_ca}")), Some(expected));

    let expected = ServerTls {
        min_version: TlsVersion::Tls12,
        reload_interval: Duration::from_secs(60),
        ..files()
    };
    assert_eq!(tls(&format!("{source}, tls_version: tls1.2, reload_interval: 1m")), Some(expected));
}

#[test]
fn a_unix_socket_needs_no_word_about_tls() {
    for tls in ["", ", tls: { insecure: true }"] {
        let config = parsed(&server(&format!("{{ endpoint: 'unix:///run/s'{tls} }}")));
        let [Server { listen, .. }] = &config.servers[..] else { panic!("{config:?}") };
        assert_eq!(listen.endpoint, Endpoint::Unix("/run/s".into()));
        assert_eq!(listen.tls, None);
    }
    let wrong = error(&server("{ endpoint: 'unix:///run/s', tls: { cert_file: a, key_file: b } }"));
    assert!(wrong.contains("servers[0].tls: a Unix socket has no TLS"), "{wrong}");
}

#[test]
fn who_does_not_say_insecure_needs_a_certificate() {
    let source = "source: { type: file, cert: /c.pem, key: /k.pem }";
    for (keys, expected) in [
        (String::new(), "tls: a certificate is missing: give source"),
        ("insecure: false".to_owned(), "tls: a certificate is missing: give source"),
        ("cert_file: /c.pem".to_owned(), "tls: a certificate without its key"),
        ("key_file: /k.pem".to_owned(), "tls: a key without a certificate"),
        (format!("{source}, cert_file: /c.pem"), "tls.source: the certificate is given twice"),
        ("cert_file: a, cert_pem: b, key_file: c".to_owned(), "tls: both cert_file and cert_pem"),
        ("source: { cert: a, key: b }".to_owned(), "tls.source.type: required: file or pem"),
        ("source: { type: spire }".to_owned(), "tls.source.type: SPIRE is not supported"),
        ("source: { type: file, cert: a }".to_owned(), "tls.source.key: required"),
        (
            format!("{source}, client_ca: {{ type: pem, path: a }}"),
            "tls.client_ca.path: unknown key",
        ),
        (
            format!("{source}, tls_version: tls1.1"),
            "tls.tls_version: \"tls1.1\" is not tls1.3 or tls1.2",
        ),
        (format!("{source}, cert: a"), "tls.cert: unknown key"),
        ("cert_fil: a, key_file: b".to_owned(), "tls.cert_fil: unknown key, did you mean cert_"),
        ("cert_fil: a".to_owned(), "tls.cert_fil: unknown key, did you mean cert_file?"),
    ] {
        let error = error(&server(&format!("{{ endpoint: '0.0.0.0:1', tls: {{ {keys} }} }}")));
        let path = "services.slim/0.dataplane.servers[0]";
        assert!(error.starts_with(&format!("{path}.{expected}")), "{keys}: {error}");
    }
    let missing = error(&server("{ endpoint: '0.0.0.0:1' }"));
    assert!(missing.contains("tls: a certificate is missing"), "{missing}");
}

/// A server entry with these keys under `auth`.
fn with_auth(keys: &str) -> String {
    server(&format!("{{ endpoint: '0.0.0.0:1', tls: {{ insecure: true }}, auth: {{ {keys} }} }}"))
}

fn auth(keys: &str) -> AuthConfig {
    parsed(&with_auth(keys)).servers.remove(0).auth.unwrap()
}

#[test]
fn users_are_read() {
    for keys in [
        "type: basic, username: alice, password: wonderland",
        "type: basic, username: alice, password: '${file:/id}'",
        "type: basic, users: [ { username: alice, password: a }, { username: bob, password: b } ]",
    ] {
        let AuthConfig::Basic(users) = auth(keys) else { panic!("{keys}") };
        let shown = format!("{users:?}");
        assert!(!shown.contains("wonderland") && !shown.contains("from-file"), "{shown}");
    }
    let AuthConfig::Basic(users) = auth(
        "type: basic, username: alice, password: '${file:/id}', users: [ { username: bob, \
              password: 'b' } ]",
    ) else {
        panic!("no users");
    };
    assert_eq!(users.check(Some(&slim_auth::basic("alice", "from-file"))), Ok("alice"));
    assert_eq!(users.check(Some(&slim_auth::basic("bob", "b"))), Ok("bob"));
}

#[test]
fn keys_of_bearers_are_read() {
    use slim_auth::{Algorithm, JwtVerifierConfig};
    use slim_identity::{BearerKeys, Issuer, Text};

    let check = |text: &str, expected: BearerKeys, config: JwtVerifierConfig| {
        let AuthConfig::Bearer { keys, config: found, .. } = auth(text) else { panic!("{text}") };
        assert_eq!((keys, found), (expected, config), "{text}");
    };
    let claims = JwtVerifierConfig {
        audience: vec!["slim".to_owned(), "other".to_owned()],
        issuer: Some("https://i".to_owned()),
        require_issuer: true,
        require_audience: true,
        ..JwtVerifierConfig::default()
    };
    let file = || Text::File("/k".into());
    check(
        "type: jwt, claims: { audience: [slim, other], issuer: 'https://i' }, duration: 1h, \
         key: { type: decoding, algorithm: ES256, format: pem, key: { file: /k } }",
        BearerKeys::Pem(Algorithm::Es256, file()),
        claims.clone(),
    );
    check(
        "type: jwt, key: { type: decoding, format: jwk, key: { file: /k } }",
        BearerKeys::Jwk(None, file()),
        JwtVerifierConfig::default(),
    );
    check(
        "type: jwt, key: { type: decoding, algorithm: RS256, format: jwks, key: { data: '{}' } }",
        BearerKeys::Jwks(Text::Inline("{}".to_owned())),
        JwtVerifierConfig::default(),
    );
    let issuer = BearerKeys::Issuer(Issuer::new("https://i").unwrap());
    check(
        "type: jwt, claims: { aud: slim, audiences: other, issuer: 'https://i' }, \
         key: { type: autoresolve }",
        issuer.clone(),
        JwtVerifierConfig {
            audience: vec!["other".to_owned(), "slim".to_owned()],
            ..claims.clone()
        },
    );
    check(
        "type: oidc, issuer_url: 'https://i', audience: [slim, other]",
        issuer,
        JwtVerifierConfig { issuer: None, ..claims },
    );
    let AuthConfig::Bearer { subject, .. } = auth(
        "type: jwt, claims: { subject: me }, key: { type: decoding, algorithm: HS256, \
         format: pem, key: { data: 0123456789abcdef0123456789abcdef } }",
    ) else {
        panic!("no bearers");
    };
    assert_eq!(subject.as_deref(), Some("me"));
}

#[test]
fn what_cannot_prove_anything_is_refused() {
    for (keys, expected) in [
        ("", ".type: required: basic, jwt or oidc"),
        ("type: spire", ".type: \"spire\" is not basic, jwt or oidc"),
        ("type: basic", ": nobody could come in"),
        ("type: basic, username: a", ".password: required"),
        ("type: basic, username: a, password: 007", ".password: expected a text; write it in"),
        ("type: basic, username: a, password: ''", ": user \"a\" has no password"),
        ("type: basic, username: 'a:b', password: c", ": \"a:b\" is no user"),
        ("type: basic, users: [ { username: a } ]", ".users[0].password: required"),
        ("type: basic, username: a, password: b, usr: 1", ".usr: unknown key"),
        ("type: jwt", ".key.type: required: decoding or autoresolve"),
        ("type: jwt, key: { type: autoresolve }", ".claims.issuer: required"),
        (
            "type: jwt, claims: { issuer: 'http://i' }, key: { type: autoresolve }",
            ".claims.issuer: issuer http://i: http is for this machine alone",
        ),
        ("type: jwt, key: { type: decoding, format: pem }", ".key.key: required"),
        (
            "type: jwt, key: { type: decoding, format: pem, key: { file: a } }",
            ".key.algorithm: required for pem",
        ),
        (
            "type: jwt, key: { type: decoding, algorithm: none, format: pem, key: { file: a } }",
            ".key.algorithm: none is none of HS256",
        ),
        (
            "type: jwt, claims: { isuer: a }, key: { type: decoding, format: jwks, \
             key: { file: a } }",
            ".claims.isuer: unknown key, did you mean issuer?",
        ),
        ("type: oidc, issuer_url: 'https://i'", ": audience is required"),
        ("type: oidc, audience: a", ".issuer_url: required"),
        (
            "type: jwt, policy: {a: b}, key: { type: decoding, format: jwks, key: { file: a } }",
            ".policy: policies over claims are not supported",
        ),
    ] {
        let error = error(&with_auth(keys));
        let path = "services.slim/0.dataplane.servers[0].auth";
        assert!(error.starts_with(&format!("{path}{expected}")), "{keys}: {error}");
    }
}
