//! One GET, bounded in time and size. No redirects: keys come from where they are said
//! to be, or not at all. No proxy is used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use slim_auth::KeySet;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long an answer may take, from connecting to its last byte.
const LIMIT: Duration = Duration::from_secs(10);

/// Fetches documents.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    tls: Arc<ClientConfig>,
}

impl Fetcher {
    /// Trusts the certificates that the system trusts.
    pub(crate) fn new() -> Self {
        let mut roots = RootCertStore::empty();
        // What the system has and cannot be used is not ours to report; if nothing can
        // be, the handshake says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: Arc::new(tls) }
    }

    /// The text that is there.
    pub(crate) async fn get(&self, url: &Uri) -> Result<String, FetchError> {
        match timeout(LIMIT, self.try_get(url)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Slow { url: url.clone(), limit: LIMIT }),
        }
    }

    async fn try_get(&self, url: &Uri) -> Result<String, FetchError> {
        let failed = |reason: String| FetchError::Failed { url: url.clone(), reason };
        let host = url.host().ok_or_else(|| failed("no host".to_owned()))?;
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let address = (host.trim_matches(['[', ']']), port);
        let stream =
            TcpStream::connect(address).await.map_err(|error| failed(error.to_string()))?;
        if is_tls {
            let name = ServerName::try_from(address.0.to_owned())
                .map_err(|error| failed(error.to_string()))?;
            let stream = TlsConnector::from(self.tls.clone())
                .connect(name, stream)
                .await
                .map_err(|error| failed(error.to_string()))?;
            exchange(url, stream).await
        } else {
            exchange(url, stream).await
        }
    }
}

async fn exchange(
    url: &Uri,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<String, FetchError> {
    let failed = |reason: String| FetchError::Failed { url: url.clone(), reason };
    let broken = |error: hyper::Error| failed(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url.clone(), status: response.status() });
        }
        let body = Limited::new(response.into_body(), KeySet::MAX_DOCUMENT);
        let body = body.collect().await.map_err(|error| failed(error.to_string()))?;
        String::from_utf8(body.to_bytes().into()).map_err(|_| failed("not a text".to_owned()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection does the work; when it ends, what it has read is still there.
        ended = connection => {
            ended.map_err(broken)?;
            answer.await
        }
    }
}

/// A document could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The answer took too long.
    #[error("{url}: no answer within {} s", limit.as_secs())]
    Slow {
        /// What was asked for.
        url: Uri,
        /// How long it may take.
        limit: Duration,
    },
    /// It answers, but does not have it.
    #[error("{url}: {status}")]
    Status {
        /// What was asked for.
        url: Uri,
        /// Its answer.
        status: StatusCode,
    },
    /// No connection, no certificate, no HTTP, or too large.
    #[error("{url}: {reason}")]
    Failed {
        /// What was asked for.
        url: Uri,
        /// What is wrong.
        reason: String,
    },
}
