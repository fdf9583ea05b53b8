//! Links other than plain gRPC: TLS with certificates of the stage's own, WebSockets,
//! and Unix sockets.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::tools::{CHANNEL, keys};
use super::{MEMBER, Stage};

/// What everybody shows who has a password.
const PASSWORD: &str = "a password of the stage";

impl Stage<'_> {
    /// Has the node speak TLS, and everybody who starts from now on. If it is mutual,
    /// the node demands certificates.
    pub(crate) fn restart_node_with_certificates(&mut self, is_mutual: bool) -> anyhow::Result<()> {
        let ca = Authority::new()?;
        let ca_file = self.write_file("ca.pem", &ca.pem)?;
        let (cert, key) = self.issue(&ca, "node", "127.0.0.1")?;
        let mut tls = json!({ "source": { "type": "file", "cert": cert, "key": key } });
        let mut client = json!({
            "insecure": false,
            "ca_source": { "type": "file", "path": ca_file },
            "include_system_ca_certs_pool": false,
        });
        if is_mutual {
            tls["client_ca"] = json!({ "type": "file", "path": ca_file });
            let (cert, key) = self.issue(&ca, "member", "member")?;
            client["source"] = json!({ "type": "file", "cert": cert, "key": key });
        }
        let endpoint = match self.node_address.starts_with("wss://") {
            true => self.node_address.clone(),
            false => format!("https://{}", self.node_address),
        };
        self.node_option = Some(json!({ "endpoint": endpoint, "tls": client }).to_string());
        // JSON is YAML.
        self.restart_node_with_tls(&tls.to_string())
    }

    /// Has the node listen on a Unix socket, where everybody finds it who starts from
    /// now on.
    pub(crate) fn restart_node_on_unix_socket(&mut self) -> anyhow::Result<()> {
        // The name of a socket must be short; the port is nobody else's.
        let port = self.node_address.rsplit(':').next().context("an address without a port")?;
        let path: PathBuf = env::temp_dir().join(format!("slim-interop-{port}.sock"));
        self.restart_node_in_clear(format!("unix://{}", path.display()))
    }

    /// Has the node speak WebSockets, and everybody who starts from now on.
    pub(crate) fn restart_node_on_websockets(&mut self) -> anyhow::Result<()> {
        self.restart_node_in_clear(format!("ws://{}", self.node_address))
    }

    /// The same with TLS.
    pub(crate) fn restart_node_on_secure_websockets(&mut self) -> anyhow::Result<()> {
        self.node_address = format!("wss://{}", self.node_address);
        self.restart_node_with_certificates(false)
    }

    fn restart_node_in_clear(&mut self, address: String) -> anyhow::Result<()> {
        self.node_address = address;
        let tls: Value = json!({ "insecure": true });
        let option = json!({ "endpoint": self.node_address, "tls": tls });
        self.node_option = Some(option.to_string());
        self.restart_node_with_tls(&tls.to_string())
    }

    /// Has the node demand a password, which everybody shows who starts from now on.
    pub(crate) fn restart_node_with_password(&mut self) -> anyhow::Result<()> {
        let auth = json!({ "type": "basic", "username": "everybody", "password": PASSWORD });
        self.restart_node_with_auth(&auth, &auth, None)
    }

    /// Has the node demand a token, which everybody signs who starts from now on.
    pub(crate) fn restart_node_with_tokens(&mut self) -> anyhow::Result<()> {
        let key = |kind: &str, file: &str| {
            let file = keys().join(file);
            json!({ "type": kind, "algorithm": "ES256", "format": "pem", "key": { "file": file } })
        };
        let auth = |claims: Value, key: Value| json!({ "type": "jwt", "duration": "1h", "claims": claims, "key": key });
        let demanded = json!({ "audience": ["nodes"], "issuer": "interop" });
        let node = auth(demanded, key("decoding", "p256.pub.pem"));
        let shown = json!({ "audience": ["nodes"], "issuer": "interop", "subject": MEMBER });
        let member = auth(shown, key("encoding", "p256.pem"));
        self.restart_node_with_auth(&node, &member, None)
    }

    /// Has the node know everybody by a password of their own, and keep each to the own
    /// name and the channel.
    pub(crate) fn restart_node_with_policy(&mut self, users: &[&str]) -> anyhow::Result<()> {
        let pair = |user: &&str| json!({ "username": user, "password": PASSWORD });
        let node = json!({ "type": "basic", "users": users.iter().map(pair).collect::<Vec<_>>() });
        let member = json!({ "type": "basic", "username": MEMBER, "password": PASSWORD });
        let name = |user: &&str| format!("interop/ns/{user}");
        let mut publish: Vec<String> = users.iter().map(name).collect();
        publish.push(CHANNEL.to_owned());
        let rule = |user: &&str| {
            let principal = format!("basic:{user}");
            let subscribe = [name(user), CHANNEL.to_owned()];
            json!({
                "name": user, "principals": principal, "subscribe": subscribe, "publish": publish
            })
        };
        let rules = json!({ "rules": users.iter().map(rule).collect::<Vec<_>>() });
        let policy = self.write_file("policy.yaml", &rules.to_string())?;
        self.restart_node_with_auth(&node, &member, Some(&policy))
    }

    fn restart_node_with_auth(
        &mut self,
        node: &Value,
        member: &Value,
        policy: Option<&Path>,
    ) -> anyhow::Result<()> {
        let tls = json!({ "insecure": true });
        let server = json!({
            "endpoint": self.node_address, "tls": tls, "auth": node, "require_header_mac": true
        });
        let mut dataplane = json!({ "servers": [server] });
        if let Some(policy) = policy {
            dataplane["policy"] = json!(policy);
        }
        let services = json!({ "services": { "slim/0": { "dataplane": dataplane } } });
        let endpoint = format!("http://{}", self.node_address);
        let option = json!({ "endpoint": endpoint, "tls": tls, "auth": member });
        self.node_option = Some(option.to_string());
        self.restart_node_with_file(&services.to_string())
    }

    fn issue(&self, ca: &Authority, file: &str, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca.issuer)?.pem();
        let certificate = self.write_file(&format!("{file}.pem"), &certificate)?;
        Ok((certificate, self.write_file(&format!("{file}.key"), &key.serialize_pem())?))
    }

    fn write_file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = std::path::absolute(self.folder.join(name))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the stage");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }
}
