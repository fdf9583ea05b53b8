//! The options for TLS, beside what `--slim` says.

use std::path::PathBuf;

use clap::Args;
use slim_client::{KeyPair, Pem};

use crate::node_option::NodeOption;

/// Whom to trust and who we are, where the node speaks TLS.
#[derive(Debug, Default, Args)]
pub(crate) struct TlsArgs {
    /// TLS: the authorities that the node's certificate may be from, PEM [default: those
    /// of the system].
    #[arg(long, env = "SLIM_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// TLS: our certificate, PEM, for a node that wants to know its clients.
    #[arg(long, env = "SLIM_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// TLS: the key of our certificate, PEM.
    #[arg(long, env = "SLIM_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// TLS: the name in the node's certificate [default: the host of its address].
    #[arg(long, env = "SLIM_TLS_SERVER_NAME", value_name = "NAME")]
    tls_server_name: Option<String>,
}

impl TlsArgs {
    /// The node as both say. An option wins over the same in a JSON object.
    ///
    /// # Errors
    /// If the node is one without TLS.
    pub(crate) fn added_to(self, mut node: NodeOption) -> Result<NodeOption, String> {
        let Self { tls_ca, tls_cert, tls_key, tls_server_name } = self;
        let option = [
            ("--tls-ca", tls_ca.is_some()),
            ("--tls-cert", tls_cert.is_some()),
            ("--tls-server-name", tls_server_name.is_some()),
        ];
        if let Some((option, _)) = option.into_iter().find(|(_, given)| *given) {
            node.endpoint = with_tls(&node.endpoint).ok_or_else(|| {
                format!("{option} needs a node whose address begins with https:// or wss://")
            })?;
        }
        let tls = &mut node.tls;
        tls.ca = tls_ca.map(Pem::File).or_else(|| tls.ca.take());
        if let (Some(certificate), Some(key)) = (tls_cert, tls_key) {
            let identity = KeyPair { certificate: Pem::File(certificate), key: Pem::File(key) };
            tls.identity = Some(identity);
        }
        tls.server_name = tls_server_name.or_else(|| tls.server_name.take());
        Ok(node)
    }
}

/// The address with the scheme of TLS, unless it has one without.
fn with_tls(endpoint: &str) -> Option<String> {
    match endpoint.split_once("://") {
        None => Some(format!("https://{endpoint}")),
        Some(("https" | "wss", _)) => Some(endpoint.to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_option;

    fn merged(args: TlsArgs, node: &str) -> Result<NodeOption, String> {
        args.added_to(node_option::parse(node).unwrap())
    }

    #[test]
    fn options_are_for_nodes_that_speak_tls() {
        let args = || TlsArgs { tls_ca: Some("/ca.pem".into()), ..TlsArgs::default() };
        for node in ["https://node:1", "node:1"] {
            let node = merged(args(), node).unwrap();
            assert_eq!(node.endpoint, "https://node:1");
            assert_eq!(node.tls.ca, Some(Pem::File("/ca.pem".into())));
        }
        let error = merged(args(), "http://node:1").unwrap_err();
        assert_eq!(error, "--tls-ca needs a node whose address begins with https:// or wss://");
        assert_eq!(merged(TlsArgs::default(), "node:1").unwrap().endpoint, "node:1");
    }

    #[test]
    fn an_option_wins_over_the_json_object() {
        let args = TlsArgs {
            tls_cert: Some("/c.pem".into()),
            tls_key: Some("/k.pem".into()),
            tls_server_name: Some("one".to_owned()),
            ..TlsArgs::default()
        };
        let json = r#"{"endpoint": "https://node:1", "server_name": "other", "tls":
            {"ca_file": "/ca.pem", "cert_file": "/other.pem", "key_file": "/other.pem"}}"#;
        let tls = merged(args, json).unwrap().tls;
        assert_eq!(tls.server_name.as_deref(), Some("one"));
        assert_eq!(tls.ca, Some(Pem::File("/ca.pem".into())));
        let identity = tls.identity.unwrap();
        assert_eq!(identity.certificate, Pem::File("/c.pem".into()));
        assert_eq!(identity.key, Pem::File("/k.pem".into()));
    }
}
