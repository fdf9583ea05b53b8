//! The keys of an OpenID Connect issuer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde_json::Value;
use slim_auth::{JwtKeyError, KeySet, Shown};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::fetch::{FetchError, Fetcher};

/// Keys are fetched again after this long.
const KEYS_LAST: Duration = Duration::from_secs(3600);
/// But not sooner than this, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(10);

/// An issuer, and where its keys are.
#[derive(Clone, Debug)]
pub struct Issuer {
    name: String,
    pause: Duration,
    url: Uri,
    fetcher: Fetcher,
}

impl Issuer {
    /// The issuer with this URL, as it stands in the claim `iss`: `https`, or `http` on
    /// this machine alone, since whoever can change the answer can be anybody.
    ///
    /// # Errors
    ///
    /// [`IssuerError::Url`].
    pub fn new(url: &str) -> Result<Self, IssuerError> {
        let refused = |reason| IssuerError::Url { url: Shown::new(url), reason };
        let uri: Uri = url.parse().map_err(|_| refused("not a URL"))?;
        let host = uri.host().ok_or_else(|| refused("not a URL with a host"))?;
        if uri.query().is_some() || url.contains('#') {
            return Err(refused("an issuer has neither query nor fragment"));
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            Some("http") => return Err(refused("http is for this machine alone; use https")),
            _ => return Err(refused("neither https nor http")),
        }
        Ok(Self { name: url.to_owned(), pause: PAUSE, url: uri, fetcher: Fetcher::new() })
    }

    /// As it stands in the claim `iss`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same issuer, asked again after at least this long, whatever tokens name.
    /// Default 10 s.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Fetches the keys again for as long as somebody has the owner: when they are old, or
    /// when one is missing, which `wanted` is told.
    pub(crate) fn follow<T: Send + Sync + 'static>(
        self,
        owner: &Arc<T>,
        wanted: Arc<Notify>,
        apply: impl Fn(&T, KeySet) + Send + 'static,
    ) {
        let owner = Arc::downgrade(owner);
        tokio::spawn(async move {
            loop {
                sleep(self.pause).await;
                // Either way it is time: the keys are old, or one is missing.
                timeout(KEYS_LAST, wanted.notified()).await.ok();
                if owner.strong_count() == 0 {
                    return;
                }
                let keys = self.keys().await;
                let Some(owner) = owner.upgrade() else { return };
                match keys {
                    Ok(keys) => {
                        info!(issuer = self.name(), keys = keys.len(), "keys fetched");
                        apply(&owner, keys);
                    }
                    Err(error) => {
                        warn!(%error, "the keys that were fetched before stay in use");
                        // What was asked for is still missing.
                        wanted.notify_one();
                    }
                }
            }
        });
    }

    /// Its keys, as they are now. They are where its discovery document says, or else at
    /// `/.well-known/jwks.json`.
    ///
    /// # Errors
    ///
    /// [`IssuerError`]. Trying again later may help.
    pub async fn keys(&self) -> Result<KeySet, IssuerError> {
        let base = self.name.trim_end_matches('/');
        let below = |path: &str| -> Result<Uri, IssuerError> {
            let url = format!("{base}{path}");
            let refused = |_| IssuerError::Url { url: Shown::new(&url), reason: "not a URL" };
            url.parse().map_err(refused)
        };
        let document = self.fetcher.get(&below("/.well-known/openid-configuration")?).await;
        let said = match &document {
            Ok(text) => self.discovered(text)?,
            Err(error) => {
                debug!(%error, "no discovery document");
                None
            }
        };
        let url = match said {
            Some(url) => url,
            None => below("/.well-known/jwks.json")?,
        };
        let text = self.fetcher.get(&url).await?;
        KeySet::from_jwks(&text).map_err(|source| IssuerError::Keys { url, source })
    }

    /// Where the keys are, if the discovery document says so.
    fn discovered(&self, text: &str) -> Result<Option<Uri>, IssuerError> {
        let Ok(document) = serde_json::from_str::<Value>(text) else { return Ok(None) };
        if let Some(found) = document.get("issuer").and_then(Value::as_str)
            && found.trim_end_matches('/') != self.name.trim_end_matches('/')
        {
            return Err(IssuerError::OtherIssuer {
                found: Shown::new(found),
                expected: Shown::new(&self.name),
            });
        }
        let Some(said) = document.get("jwks_uri").and_then(Value::as_str) else { return Ok(None) };
        let elsewhere =
            || IssuerError::Elsewhere { keys: Shown::new(said), issuer: Shown::new(&self.name) };
        let url: Uri = said.parse().map_err(|_| elsewhere())?;
        if origin(&url) == origin(&self.url) { Ok(Some(url)) } else { Err(elsewhere()) }
    }
}

/// The same issuer: what is fetched is not compared.
impl PartialEq for Issuer {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Issuer {}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and port.
fn origin(url: &Uri) -> (Option<&str>, Option<&str>, u16) {
    let usual = if url.scheme_str() == Some("https") { 443 } else { 80 };
    (url.scheme_str(), url.host(), url.port_u16().unwrap_or(usual))
}

/// The keys of an issuer could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IssuerError {
    /// Nothing can be fetched from there.
    #[error("issuer {url}: {reason}")]
    Url {
        /// As it was given.
        url: Shown,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It does not answer, or not with what it should.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The discovery document is somebody else's.
    #[error("the discovery document is of issuer {found}, expected {expected}")]
    OtherIssuer {
        /// Whose.
        found: Shown,
        /// Whose it should be.
        expected: Shown,
    },
    /// Keys from another place would let that place be anybody.
    #[error("the keys of issuer {issuer} are said to be at {keys}, another place")]
    Elsewhere {
        /// Where they should be.
        keys: Shown,
        /// Of whom.
        issuer: Shown,
    },
    /// What is there are no keys.
    #[error("{url}: {source}")]
    Keys {
        /// Where.
        url: Uri,
        /// What is wrong.
        source: JwtKeyError,
    },
}
