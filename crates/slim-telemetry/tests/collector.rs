//! Sending to collectors that are there, that are not, and that are somebody else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use opentelemetry::global;
use opentelemetry::trace::{Span as _, Tracer as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use slim_telemetry::{Telemetry, TelemetryConfig};
use slim_testkit::collector::Collector;
use slim_testkit::within;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

fn config(endpoint: &str) -> TelemetryConfig {
    let endpoint = Some(endpoint.to_owned());
    TelemetryConfig { endpoint, ..TelemetryConfig::new("a-test", "1.2.3", "instance") }
}

/// Sends one span, and gives the outcome.
async fn send(config: &TelemetryConfig) -> Result<(), String> {
    let telemetry = Telemetry::start(config).unwrap();
    global::tracer("test").start("a span").end();
    let ended = tokio::task::spawn_blocking(|| telemetry.shutdown());
    within("the end", ended).await.unwrap().map_err(|error| error.to_string())
}

/// An authority, and a certificate of it for localhost with its key, PEM.
fn authority() -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (ca, params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

/// One after the other, as the providers are the process's.
#[test]
fn collectors_are_sent_to_as_configured() {
    Runtime::new().unwrap().block_on(async {
        let collector = Collector::start().await;
        send(&config(collector.endpoint())).await.unwrap();
        assert_eq!(collector.received().spans.len(), 1);
        assert_eq!(collector.received().authorization, None);

        let (ca, certificate, key) = authority();
        let collector = Collector::start_tls(&certificate, &key).await;
        let trusting = TelemetryConfig {
            ca: Some(ca.into_bytes()),
            system_roots: false,
            headers: vec![("authorization".to_owned(), "Bearer a token".to_owned())],
            ..config(collector.endpoint())
        };
        send(&trusting).await.unwrap();
        assert_eq!(collector.received().spans.len(), 1);
        let shown = collector.received().authorization.clone();
        assert_eq!(shown.as_deref(), Some("Bearer a token"));

        let (other_ca, ..) = authority();
        let strict = TelemetryConfig { ca: Some(other_ca.into_bytes()), ..trusting.clone() };
        // What comes of it is in the log.
        send(&strict).await.ok();
        assert_eq!(collector.received().spans.len(), 1, "it is not the one that is meant");

        // It takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let error = send(&config(&endpoint)).await.unwrap_err();
        assert!(!error.contains("token"), "{error}");
        drop(silent);
        send(&config(&endpoint)).await.ok();
    });
}

#[test]
fn what_cannot_be_a_collector_is_refused_at_once() {
    Runtime::new().unwrap().block_on(async {
        let check = |config: TelemetryConfig, expected: &str| {
            let error = Telemetry::start(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "no {expected:?} in {error:?}");
            assert!(!error.contains("secret"), "{error}");
        };
        check(config("no address"), "no address");
        let headers = |name: &str, value: &str| TelemetryConfig {
            headers: vec![(name.to_owned(), value.to_owned())],
            ..config("http://localhost:1")
        };
        check(headers("a name", "secret"), "\"a name\"");
        check(headers("name", "secret\n"), "\"name\"");
        let tls = TelemetryConfig { ca: Some(b"no PEM".to_vec()), ..config("https://localhost:1") };
        // Nothing of it is a certificate, so nobody would be trusted.
        check(TelemetryConfig { system_roots: false, ..tls }, "CA");
    });
}

#[test]
fn debug_shows_no_header_and_no_key() {
    let config = TelemetryConfig {
        headers: vec![("authorization".to_owned(), "secret".to_owned())],
        identity: Some((b"secret".to_vec(), b"secret".to_vec())),
        ..config("http://localhost:1")
    };
    let shown = format!("{config:?}");
    assert!(shown.contains("a-test") && !shown.contains("secret"), "{shown}");
}
