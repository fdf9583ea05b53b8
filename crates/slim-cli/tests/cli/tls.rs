//! Conversations over TLS, and what is said where they do not come about.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use slim_node::{Pem, ServerTls};

use super::support::{Exit, Slim, TestNode};

/// An authority, and a folder with its certificate and those that it has signed, which
/// goes when this is dropped.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("slim-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str) -> slim_node::KeyPair {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let [certificate_file, key_file] =
            ["pem", "key"].map(|end| self.file(&format!("{name}.{end}")));
        fs::write(&certificate_file, certificate).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        slim_node::KeyPair {
            certificate: Pem::File(certificate_file.into()),
            key: Pem::File(key_file.into()),
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// How `slim` ends that cannot connect.
fn ends(url: &str, change: impl FnOnce(&mut Command)) -> Exit {
    Slim::start_at(url, "group --local a/b/c", change).exit()
}

#[test]
fn a_call_over_tls_with_certificates_on_both_sides() {
    let ca = Authority::new("call");
    let client_ca = Some(Pem::File(ca.file("ca.pem").into()));
    let tls = ServerTls { client_ca, ..ServerTls::new(ca.issue("127.0.0.1")) };
    let node = TestNode::start_with(Some(tls), None);
    ca.issue("app");
    let options = |command: &mut Command| {
        command.args(["--tls-ca", &ca.file("ca.pem"), "--tls-cert", &ca.file("app.pem")]);
        // A variable does as well.
        command.env("SLIM_TLS_KEY", ca.file("app.key"));
    };
    let mut listener = Slim::start_with(&node, "p2p --local a/b/listener", options);
    let connected = listener.expect("connected");
    assert_eq!(connected["node"], node.url().as_str());
    listener.expect("waiting");
    let line = "p2p --local a/b/caller --remote a/b/listener --message hey --iterations 1";
    let mut caller = Slim::start_with(&node, line, options);
    caller.expect_message("hey");
    caller.exit_well();
    listener.expect("closed");
}

#[test]
fn a_node_that_cannot_be_trusted_is_left_at_once() {
    let [ca, other] = ["trust-ca", "trust-other"].map(Authority::new);
    let node = TestNode::start_with(Some(ServerTls::new(ca.issue("127.0.0.1"))), None);
    let exit = ends(&node.url(), |command| {
        command.args(["--tls-ca", &other.file("ca.pem")]);
    });
    exit.assert_failed(3, "node_insecure");
    assert!(exit.stderr.contains("the issuer of its certificate is unknown here"), "{exit:?}");

    let exit = ends(&node.url(), |command| {
        command.args(["--tls-ca", &ca.file("ca.pem"), "--tls-server-name", "other.example"]);
    });
    exit.assert_failed(3, "node_insecure");
    assert!(exit.stderr.contains("its certificate is not for \"other.example\""), "{exit:?}");

    let plain = node.url().replace("https", "http");
    let exit = ends(&plain, |_| {});
    exit.assert_failed(3, "node_insecure");
    assert!(exit.stderr.contains("begins with https://"), "{exit:?}");

    let node = TestNode::start();
    let url = node.url().replace("http", "https");
    let exit = ends(&url, |command| {
        command.args(["--tls-ca", &ca.file("ca.pem")]);
    });
    exit.assert_failed(3, "node_insecure");
    assert!(exit.stderr.contains("plain text"), "{exit:?}");
}

#[test]
fn a_node_that_wants_to_know_us_says_so() {
    let [ca, other] = ["know-ca", "know-other"].map(Authority::new);
    let client_ca = Some(Pem::File(ca.file("ca.pem").into()));
    let tls = ServerTls { client_ca, ..ServerTls::new(ca.issue("127.0.0.1")) };
    let node = TestNode::start_with(Some(tls), None);
    let exit = ends(&node.url(), |command| {
        command.args(["--tls-ca", &ca.file("ca.pem")]);
    });
    exit.assert_failed(4, "identity_refused");
    assert!(exit.stderr.contains("it wants a certificate from us"), "{exit:?}");
    other.issue("app");
    let exit = ends(&node.url(), |command| {
        command.args(["--tls-ca", &ca.file("ca.pem")]);
        command.args(["--tls-cert", &other.file("app.pem"), "--tls-key", &other.file("app.key")]);
    });
    exit.assert_failed(4, "identity_refused");
    assert!(exit.stderr.contains("does not accept our certificate"), "{exit:?}");
}

#[test]
fn files_that_cannot_be_used_are_usage() {
    let ca = Authority::new("files");
    let node = TestNode::start_with(Some(ServerTls::new(ca.issue("127.0.0.1"))), None);
    let exit = ends(&node.url(), |command| {
        command.args(["--tls-ca", "/no/such/ca.pem"]);
    });
    assert_eq!(exit.status, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("cannot read the CA /no/such/ca.pem"), "{exit:?}");
    let exit = ends(&node.url(), |command| {
        command.args(["--tls-cert", &ca.file("127.0.0.1.pem")]);
    });
    assert_eq!(exit.status, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("--tls-key"), "{exit:?}");
}
