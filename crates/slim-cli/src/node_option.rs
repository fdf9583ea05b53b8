//! The option `--slim`: an address, or the JSON object that other SLIM programs
//! take, of which `endpoint`, `server_name`, `tls` and `auth` count.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use slim_client::{Authorization, ClientTls, KeyPair, Pem, TlsVersion};
use slim_identity::LinkCredentials;

/// How to reach the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeOption {
    /// `http://host:port`, `https://host:port` or `host:port`.
    pub(crate) endpoint: String,
    /// Where the address is one with TLS.
    pub(crate) tls: ClientTls,
    /// What it is shown to let us in.
    pub(crate) auth: Option<LinkCredentials>,
    /// Keys of the JSON object that have no effect here.
    pub(crate) ignored: Vec<String>,
}

impl NodeOption {
    /// What the node is shown.
    pub(crate) fn authorization(&self) -> Option<Authorization> {
        let credentials = self.auth.clone()?;
        Some(Authorization::new(move || {
            // Before 1970 no token is good.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            credentials.header(now.as_secs()).map_err(|error| error.to_string())
        }))
    }
}

/// Reads the option. Whether an address can be dialled is the client's to say.
///
/// # Errors
/// What is wrong with the JSON object.
pub(crate) fn parse(text: &str) -> Result<NodeOption, String> {
    let text = text.trim();
    if text.starts_with('{') {
        return from_json(text);
    }
    let endpoint = text.to_owned();
    Ok(NodeOption { endpoint, tls: ClientTls::default(), auth: None, ignored: Vec::new() })
}

fn from_json(text: &str) -> Result<NodeOption, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let mut root = Object::new("", value)?;
    let Some(endpoint) = root.text("endpoint")? else {
        return Err("\"endpoint\" is missing: \
                    expected {\"endpoint\": \"http://host:port\", \"tls\": {\"insecure\": true}}"
            .to_owned());
    };
    let auth = match root.take("auth") {
        None => None,
        Some(mut auth) => {
            replace_references(&mut auth)?;
            LinkCredentials::from_config(auth)?
        }
    };
    let server_name = root.text("server_name")?;
    let mut object = root.object("tls")?;
    let insecure = object.flag("insecure")?;
    let mut ignored = root.rest();
    if insecure == Some(true) {
        if let Some((scheme @ ("https" | "wss"), _)) = endpoint.split_once("://") {
            return Err(format!(
                "\"tls.insecure\" is true, but \"endpoint\" begins with {scheme}://"
            ));
        }
        ignored.extend(object.rest());
        return Ok(NodeOption { endpoint, tls: ClientTls::default(), auth, ignored });
    }
    let tls = ClientTls { server_name, ..read_tls(&mut object)? };
    ignored.extend(object.rest());
    // Who says how to trust a node wants to, whatever the scheme of the address.
    let wants_tls = insecure == Some(false) || tls != ClientTls::default();
    let endpoint = match endpoint.split_once("://") {
        None if wants_tls => format!("https://{endpoint}"),
        Some(("http", address)) if wants_tls => format!("https://{address}"),
        Some(("ws", address)) if wants_tls => format!("wss://{address}"),
        _ => endpoint,
    };
    Ok(NodeOption { endpoint, tls, auth, ignored })
}

/// Puts the values of `${env:NAME}` and `${file:PATH}` where they stand, so that a
/// password need not be an argument, which others on the machine can see.
fn replace_references(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Object(entries) => entries.values_mut().try_for_each(replace_references),
        Value::String(text) => {
            let inner = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
            let read = match inner.and_then(|inner| inner.split_once(':')) {
                Some(("env", name)) => std::env::var(name)
                    .map_err(|error| format!("environment variable {name}: {error}"))?,
                Some(("file", path)) => {
                    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?
                }
                _ => return Ok(()),
            };
            *text = read.trim_end_matches(['\r', '\n']).to_owned();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn read_tls(object: &mut Object) -> Result<ClientTls, String> {
    if object.flag("insecure_skip_verify")? == Some(true) {
        return Err("\"tls.insecure_skip_verify\" is true, but an unchecked node is as good as \
                    none: give \"tls.ca_file\""
            .to_owned());
    }
    let mut source = object.object("source")?;
    let [certificate, key] = ["cert", "key"].map(|key| source.kind_of(key, key));
    let certificate = certificate?.or(object.older("cert")?);
    let key = key?.or(object.older("key")?);
    let identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(KeyPair { certificate, key }),
        (Some(_), None) => {
            return Err("\"tls.key_file\" is missing beside the certificate".to_owned());
        }
        (None, Some(_)) => return Err("\"tls.cert_file\" is missing beside the key".to_owned()),
    };
    let ca = object.object("ca_source")?.kind_of("path", "data")?;
    let min_version = match object.text("tls_version")?.as_deref() {
        None | Some("tls1.3") => TlsVersion::Tls13,
        Some("tls1.2") => TlsVersion::Tls12,
        Some(_) => return Err("\"tls.tls_version\" is neither tls1.3 nor tls1.2".to_owned()),
    };
    Ok(ClientTls {
        ca: ca.or(object.older("ca")?),
        system_roots: object.flag("include_system_ca_certs_pool")?,
        identity,
        server_name: None,
        min_version,
    })
}

/// An object whose keys are taken out one by one.
struct Object {
    path: String,
    entries: Map<String, Value>,
}

impl Object {
    fn new(path: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(entries) => Ok(Self { path: path.to_owned(), entries }),
            Value::Null => Ok(Self { path: path.to_owned(), entries: Map::new() }),
            _ => Err(format!("{path:?} is not an object")),
        }
    }

    fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    /// Empty if it is not there.
    fn object(&mut self, key: &str) -> Result<Self, String> {
        let value = self.take(key).unwrap_or(Value::Null);
        Self::new(&self.path(key), value)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{:?} is not a text", self.path(key))),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(format!("{:?} is neither true nor false", self.path(key))),
        }
    }

    /// `NAME_file` or `NAME_pem`.
    fn older(&mut self, name: &str) -> Result<Option<Pem>, String> {
        let text = self.text(&format!("{name}_pem"))?.map(Pem::Text);
        Ok(text.or(self.text(&format!("{name}_file"))?.map(|path| Pem::File(path.into()))))
    }

    /// What a source of type `file` has under one key, and of type `pem` under the
    /// other.
    fn kind_of(&mut self, file: &str, pem: &str) -> Result<Option<Pem>, String> {
        let kind = self.entries.get("type").cloned();
        match kind.as_ref().and_then(Value::as_str) {
            None if self.entries.is_empty() => Ok(None),
            Some("none") => Ok(None),
            Some("file") => Ok(self.text(file)?.map(|path| Pem::File(path.into()))),
            Some("pem") => Ok(self.text(pem)?.map(Pem::Text)),
            _ => Err(format!("{:?} is neither file nor pem", self.path("type"))),
        }
    }

    /// Paths of what nobody has asked for.
    fn rest(&self) -> Vec<String> {
        self.entries.keys().map(|key| self.path(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, endpoint: &str, ignored: &[&str]) {
        let expected = NodeOption {
            endpoint: endpoint.to_owned(),
            tls: ClientTls::default(),
            auth: None,
            ignored: ignored.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    fn refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        check("http://localhost:46357", "http://localhost:46357", &[]);
        check("https://localhost:46357", "https://localhost:46357", &[]);
        check(" node:1 ", "node:1", &[]);
    }

    #[test]
    fn the_json_object_gives_its_endpoint() {
        let text = r#"{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}"#;
        check(text, "http://localhost:46357", &[]);
        check(r#"{"endpoint": "node:1"}"#, "node:1", &[]);
    }

    #[test]
    fn keys_without_effect_are_named() {
        check(
            r#"{"endpoint": "node:1", "origin": "x", "tls": {"insecure": true, "ca_file": "y"}}"#,
            "node:1",
            &["origin", "tls.ca_file"],
        );
    }

    #[test]
    fn the_json_object_says_how_to_trust() {
        let files = ClientTls {
            ca: Some(Pem::File("/ca.pem".into())),
            identity: Some(KeyPair {
                certificate: Pem::File("/c.pem".into()),
                key: Pem::File("/k.pem".into()),
            }),
            ..ClientTls::default()
        };
        let today = r#""ca_source": {"type": "file", "path": "/ca.pem"},
            "source": {"type": "file", "cert": "/c.pem", "key": "/k.pem"}"#;
        let older = r#""ca_file": "/ca.pem", "cert_file": "/c.pem", "key_file": "/k.pem""#;
        for keys in [today, older] {
            for endpoint in ["https://node:1", "http://node:1", "node:1"] {
                let text = format!(r#"{{"endpoint": "{endpoint}", "tls": {{ {keys} }}}}"#);
                let node = parse(&text).unwrap();
                assert_eq!(node.endpoint, "https://node:1", "{text}");
                assert_eq!(node.tls, files, "{text}");
            }
        }
        let text = r#"{"endpoint": "node:1", "server_name": "n", "tls": {"ca_source":
            {"type": "pem", "data": "x"}, "tls_version": "tls1.2",
            "include_system_ca_certs_pool": true}}"#;
        let expected = ClientTls {
            ca: Some(Pem::Text("x".to_owned())),
            system_roots: Some(true),
            server_name: Some("n".to_owned()),
            min_version: TlsVersion::Tls12,
            ..ClientTls::default()
        };
        assert_eq!(parse(text).unwrap().tls, expected);
        check(r#"{"endpoint": "node:1", "tls": {"insecure": false}}"#, "https://node:1", &[]);
        let web = r#"{"endpoint": "ws://node:1/a", "tls": {"insecure": false}}"#;
        check(web, "wss://node:1/a", &[]);
    }

    #[test]
    fn the_json_object_says_what_to_show() {
        let text = r#"{"endpoint": "node:1", "tls": {"insecure": true}, "auth": {"type": "basic",
            "username": "alice", "password": "wonderland"}}"#;
        let node = parse(text).unwrap();
        let (user, password) = ("alice".to_owned(), "wonderland".to_owned());
        assert_eq!(node.auth, Some(LinkCredentials::Basic { user, password }));
        assert!(node.ignored.is_empty() && node.authorization().is_some());
        assert!(!format!("{node:?}").contains("wonderland"));

        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let text = format!(
            r#"{{"endpoint": "node:1", "auth": {{"type": "basic", "username": "a",
                "password": "${{file:{manifest}}}"}}}}"#
        );
        let Some(LinkCredentials::Basic { password, .. }) = parse(&text).unwrap().auth else {
            panic!("no password");
        };
        assert!(password.starts_with("[package]") && !password.ends_with('\n'));
        refused(&text.replace("Cargo.toml", "no-such-file"), "no-such-file: ");
        refused(
            r#"{"endpoint": "node:1", "auth": {"type": "basic", "username": "a",
                "password": "${env:NO_SUCH_VARIABLE}"}}"#,
            "NO_SUCH_VARIABLE",
        );
        refused(r#"{"endpoint": "node:1", "auth": {"type": "x"}}"#, "\"auth.type\" is none of");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        refused("{", "not a JSON object");
        refused(r#"{"endpoint": "node:1"} x"#, "not a JSON object");
        refused("{}", "\"endpoint\" is missing");
        refused(r#"{"endpoint": 7}"#, "\"endpoint\" is not a text");
        refused(r#"{"endpoint": "node:1", "tls": {"insecure": "no"}}"#, "neither true nor false");
        refused(
            r#"{"endpoint": "https://node:1", "tls": {"insecure": true}}"#,
            "begins with https://",
        );
        refused(r#"{"endpoint": "wss://node:1", "tls": {"insecure": true}}"#, "begins with wss://");
        refused(
            r#"{"endpoint": "https://node:1", "tls": {"insecure_skip_verify": true}}"#,
            "insecure_skip_verify",
        );
        refused(
            r#"{"endpoint": "https://node:1", "tls": {"cert_file": "c"}}"#,
            "\"tls.key_file\" is missing",
        );
        refused(
            r#"{"endpoint": "https://node:1", "tls": {"ca_source": {"path": "c"}}}"#,
            "\"tls.ca_source.type\" is neither",
        );
    }
}
