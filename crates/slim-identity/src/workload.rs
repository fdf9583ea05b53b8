//! Identity and keys by the Workload API of a SPIFFE agent on this machine.
//!
//! Our token is a JWT-SVID, renewed when two thirds of its life are over. It has no place
//! for claims of ours, so our public key goes into an audience, `slim-claims:` and base64
//! of JSON. The keys that verify others come with a stream, those of federated trust
//! domains among them. While the agent is away, what it gave last stays in use.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use slim_auth::{
    Identity as _, JwtVerifier, JwtVerifierConfig, KeySet, PublicKey, Shown, SigningKey,
    TokenIdentity, TokenIdentityError, Verifier as _, VerifyError,
};
use spiffe::transport::Endpoint;
use spiffe::{JwtBundleSet, SpiffeId, TrustDomain, WorkloadApiClient, WorkloadApiError};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::credentials::{Credentials, LoadError, Own};

/// How long the agent has for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the clock is looked at: it may jump, as after a sleep of the machine.
const LOOK: Duration = Duration::from_secs(2);
/// Between two attempts to reach the agent: at first, and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// So many characters of what an agent says are passed on.
const WORDS: usize = 400;
/// For whom tokens are, unless somebody says otherwise.
const AUDIENCE: &str = "slim";
/// Where the agent is, if nobody says (SPIFFE Workload Endpoint §4).
const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where our SPIFFE identity comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    endpoint: Endpoint,
    /// The same, as it is shown.
    address: String,
    id: Option<SpiffeId>,
    domains: Vec<TrustDomain>,
    audience: Vec<String>,
}

impl Workload {
    /// By the agent at this socket: a path, `unix:///path`, or `tcp://127.0.0.1:port`. If
    /// none is given, the variable `SPIFFE_ENDPOINT_SOCKET` says where.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Socket`] and [`WorkloadError::NoSocket`].
    pub fn new(socket: Option<&str>) -> Result<Self, WorkloadError> {
        let text = match socket {
            Some(text) => text.to_owned(),
            None => std::env::var(VARIABLE).map_err(|_| WorkloadError::NoSocket)?,
        };
        let refused = |reason: String| WorkloadError::Socket { given: Shown::new(&text), reason };
        let endpoint = if text.starts_with("unix:") || text.starts_with("tcp:") {
            text.parse().map_err(|error| refused(describe(&error)))?
        } else {
            let path = std::path::absolute(&text).map_err(|error| refused(error.to_string()))?;
            Endpoint::Unix(path)
        };
        let address = match &endpoint {
            Endpoint::Unix(path) => format!("unix://{}", path.display()),
            Endpoint::Tcp { host, port } if host.is_loopback() => format!("tcp://{host}:{port}"),
            _ => return Err(refused("not a socket of this machine".to_owned())),
        };
        let audience = vec![AUDIENCE.to_owned()];
        Ok(Self { endpoint, address, id: None, domains: Vec::new(), audience })
    }

    /// This identity, if the agent has several for us. Default: the first.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Id`].
    pub fn with_id(mut self, id: &str) -> Result<Self, WorkloadError> {
        let id = SpiffeId::new(id).map_err(|error| WorkloadError::Id {
            given: Shown::new(id),
            reason: error.to_string(),
        })?;
        self.id = Some(id);
        Ok(self)
    }

    /// Believes only these trust domains. Default: all whose keys the agent gives us, its
    /// own and those that it is federated with.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Domain`].
    pub fn with_domains(mut self, domains: &[String]) -> Result<Self, WorkloadError> {
        let read = |domain: &String| {
            TrustDomain::new(domain).map_err(|error| WorkloadError::Domain {
                given: Shown::new(domain),
                reason: error.to_string(),
            })
        };
        self.domains = domains.iter().map(read).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// For whom tokens have to be, and ours are. Default `slim`; an empty list changes
    /// nothing.
    #[must_use]
    pub fn with_audience(mut self, audience: Vec<String>) -> Self {
        if !audience.is_empty() {
            self.audience = audience;
        }
        self
    }

    async fn connect(&self) -> Result<WorkloadApiClient, WorkloadError> {
        self.bounded(WorkloadApiClient::connect(self.endpoint.clone())).await
    }

    /// A token made out to this key.
    async fn token(&self, key: &PublicKey) -> Result<String, WorkloadError> {
        let mut audience = self.audience.clone();
        let claims = json!({ "pubkey": key.to_base64() }).to_string();
        audience.push(format!("slim-claims:{}", STANDARD.encode(claims)));
        let client = self.connect().await?;
        self.bounded(client.fetch_jwt_token(&audience, self.id.as_ref())).await
    }

    /// The keys of others, as they are now, and whenever they change.
    async fn bundles(&self) -> Result<Bundles, WorkloadError> {
        let client = self.connect().await?;
        let stream = self.bounded(client.stream_jwt_bundles()).await?;
        Ok(Box::pin(stream))
    }

    /// The next keys of a stream.
    async fn next(&self, bundles: &mut Bundles) -> Result<KeySet, WorkloadError> {
        match bundles.next().await {
            Some(Ok(bundles)) => self.keys(&bundles),
            Some(Err(error)) => Err(self.failed(&error)),
            None => Err(self.says("it ended the stream of keys")),
        }
    }

    fn keys(&self, bundles: &JwtBundleSet) -> Result<KeySet, WorkloadError> {
        let mut keys = KeySet::default();
        let mut fault = None;
        for (domain, bundle) in bundles.iter() {
            if !self.domains.is_empty() && !self.domains.contains(domain) {
                continue;
            }
            let jwks: Vec<Value> = (bundle.jwt_authorities())
                .filter_map(|authority| serde_json::from_slice(authority.jwk_json()).ok())
                .collect();
            let jwks = json!({ "keys": jwks }).to_string();
            match KeySet::from_domain(domain.as_ref(), &jwks) {
                Ok(more) => keys.extend(more),
                // A domain that has none does not keep the others out.
                Err(error) => fault = Some(format!("trust domain {domain}: {error}")),
            }
        }
        match fault {
            _ if !keys.is_empty() => Ok(keys),
            Some(fault) => Err(self.says(&fault)),
            None => Err(self.says("it has no keys of the trust domains that we believe")),
        }
    }

    async fn bounded<T>(
        &self,
        asking: impl Future<Output = Result<T, WorkloadApiError>>,
    ) -> Result<T, WorkloadError> {
        match timeout(LIMIT, asking).await {
            Ok(result) => result.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.says(&format!("no answer within {} s", LIMIT.as_secs()))),
        }
    }

    fn failed(&self, error: &WorkloadApiError) -> WorkloadError {
        match error {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                let id = self.id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
                self.says(&format!("it has no identity{id} for this process: is it registered?"))
            }
            error => self.says(&describe(error)),
        }
    }

    fn says(&self, reason: &str) -> WorkloadError {
        let reason = Shown::up_to(WORDS, reason);
        WorkloadError::Agent { endpoint: self.address.clone(), reason }
    }
}

type Bundles = std::pin::Pin<Box<dyn Stream<Item = Result<JwtBundleSet, WorkloadApiError>> + Send>>;

impl Credentials {
    /// Asks an agent who we are and whom to believe, and follows what it says from then
    /// on. The key that signs our messages is new, and stays the same as long as these
    /// credentials are in use.
    ///
    /// # Errors
    ///
    /// [`LoadError::Workload`], if the agent is not there, or has nothing for us.
    pub async fn from_agent(workload: &Workload) -> Result<Arc<Self>, LoadError> {
        let key = SigningKey::generate().map_err(|error| workload.says(&error.to_string()))?;
        let token = workload.token(key.public_key()).await?;
        let own = TokenIdentity::new(&token, key).map_err(WorkloadError::Token)?;
        // From now on this one, whatever else it may have for us.
        let workload = workload.clone().with_id(own.subject())?;
        let mut bundles = workload.bundles().await?;
        let first = timeout(LIMIT, workload.next(&mut bundles)).await;
        let keys = first.map_err(|_| workload.says("it gives no keys"))??;
        let config = JwtVerifierConfig {
            audience: workload.audience.clone(),
            require_audience: true,
            claims_in_audience: true,
            require_spiffe_id: true,
            ..JwtVerifierConfig::default()
        };
        let verifier = JwtVerifier::new(keys, config);
        // Nobody would believe what we do not believe ourselves.
        verifier.verify(&token, now()).map_err(WorkloadError::Own)?;
        let due = due(now(), own.expires_at());
        let this = Arc::new(Self::new(Own::Issued(own), verifier, None));
        tokio::spawn(renew(workload.clone(), Arc::downgrade(&this), due));
        tokio::spawn(follow(workload, Arc::downgrade(&this), bundles));
        Ok(this)
    }

    /// Gets another token; when the next is due.
    async fn renew(&self, workload: &Workload) -> Result<u64, WorkloadError> {
        let Own::Issued(own) = &self.own else { return Ok(u64::MAX) };
        let token = workload.token(own.key().public_key()).await?;
        own.set_token(&token).map_err(WorkloadError::Token)?;
        self.changed();
        Ok(due(now(), own.expires_at()))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When a token that was made now is renewed: when two thirds of its life are over, but
/// not at once again.
fn due(now: u64, expires_at: u64) -> u64 {
    let life = expires_at.saturating_sub(now);
    now.saturating_add((life / 3 * 2 + life % 3 * 2 / 3).max(1))
}

/// Waits, but not beyond the next look at the clock. False: nobody has them any more.
async fn pause(owner: &Weak<Credentials>, time: Duration) -> bool {
    sleep(time.min(LOOK)).await;
    owner.strong_count() > 0
}

/// Renews our token whenever it is due.
async fn renew(workload: Workload, owner: Weak<Credentials>, mut due: u64) {
    let mut retry = PAUSE[0];
    while pause(&owner, Duration::from_secs(due.saturating_sub(now()))).await {
        if now() < due {
            continue;
        }
        let Some(credentials) = owner.upgrade() else { return };
        match credentials.renew(&workload).await {
            Ok(next) => {
                info!(subject = credentials.subject(), "token renewed");
                (due, retry) = (next, PAUSE[0]);
            }
            Err(error) => {
                warn!(%error, "our token could not be renewed; the old one stays in use");
                due = now().saturating_add(retry.as_secs());
                retry = (retry * 2).min(PAUSE[1]);
            }
        }
    }
}

/// Takes over new keys whenever there are some.
async fn follow(workload: Workload, owner: Weak<Credentials>, bundles: Bundles) {
    let mut bundles = Some(bundles);
    let mut retry = PAUSE[0];
    loop {
        let next = match &mut bundles {
            Some(stream) => match timeout(LOOK, workload.next(stream)).await {
                Ok(next) => next,
                // Nothing new.
                Err(_) if owner.strong_count() > 0 => continue,
                Err(_) => return,
            },
            None => match workload.bundles().await {
                Ok(stream) => {
                    bundles = Some(stream);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        let Some(credentials) = owner.upgrade() else { return };
        match next {
            Ok(keys) => {
                info!(keys = keys.len(), "keys of trust domains");
                credentials.verifier.set_keys(keys);
                credentials.changed();
                retry = PAUSE[0];
            }
            Err(error) => {
                drop(credentials);
                warn!(%error, "the keys that it gave before stay in use");
                bundles = None;
                if !pause(&owner, retry).await {
                    return;
                }
                retry = (retry * 2).min(PAUSE[1]);
            }
        }
    }
}

/// An error with its causes, each said once.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

/// There is no SPIFFE identity for us.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WorkloadError {
    /// Not where an agent could be.
    #[error("socket {given} of the SPIFFE agent: {reason}")]
    Socket {
        /// As it was given.
        given: Shown,
        /// What is wrong.
        reason: String,
    },
    /// Nobody says where the agent is.
    #[error("no socket of a SPIFFE agent is given, and {VARIABLE} is not set")]
    NoSocket,
    /// Not a SPIFFE ID.
    #[error("{given} is no SPIFFE ID, spiffe://domain/path: {reason}")]
    Id {
        /// As it was given.
        given: Shown,
        /// What is wrong.
        reason: String,
    },
    /// Not a trust domain.
    #[error("{given} is no trust domain: {reason}")]
    Domain {
        /// As it was given.
        given: Shown,
        /// What is wrong.
        reason: String,
    },
    /// The agent is not there, or has not what we need.
    #[error("SPIFFE agent at {endpoint}: {reason}")]
    Agent {
        /// Where.
        endpoint: String,
        /// What is wrong.
        reason: Shown,
    },
    /// The token of the agent is no identity of ours.
    #[error("SPIFFE agent: {0}")]
    Token(TokenIdentityError),
    /// Its token does not verify with its own keys.
    #[error("the token of the SPIFFE agent does not verify with its own keys: {0}")]
    Own(VerifyError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_when_two_thirds_are_over() {
        for (now, expires_at, expected) in [
            (1000, 1300, 1200),
            (1000, 4600, 3400),
            (1000, 1003, 1002),
            (1000, 1002, 1001),
            // Not in a hurry, whatever the agent says.
            (1000, 1000, 1001),
            (1000, 10, 1001),
            (0, u64::MAX, u64::MAX / 3 * 2),
        ] {
            assert_eq!(due(now, expires_at), expected, "{now} {expires_at}");
        }
    }

    #[test]
    fn sockets_in_all_forms() {
        let at = |socket: &str| Workload::new(Some(socket)).map(|workload| workload.endpoint);
        for socket in ["/run/a.sock", "unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(at(socket), Ok(Endpoint::Unix("/run/a.sock".into())), "{socket}");
        }
        let here = std::env::current_dir().unwrap().join("a.sock");
        assert_eq!(at("a.sock"), Ok(Endpoint::Unix(here)));
        assert!(at("tcp://127.0.0.1:8081").is_ok());
        for bad in ["tcp://192.0.2.1:8081", "tcp://localhost", "unix:", "unix://host/path", ""] {
            let words = at(bad).unwrap_err().to_string();
            assert!(words.starts_with("socket ") && words.contains(bad), "{words}");
        }
    }

    #[test]
    fn ids_and_domains_are_checked() {
        let workload = || Workload::new(Some("/a")).unwrap();
        let id = workload().with_id("alice").unwrap_err().to_string();
        assert!(id.starts_with("alice is no SPIFFE ID, spiffe://domain/path: "), "{id}");
        let domain = workload().with_domains(&["Not A Domain".to_owned()]).unwrap_err();
        assert!(domain.to_string().starts_with("Not A Domain is no trust domain: "), "{domain}");
        assert!(workload().with_id("spiffe://example.org/alice").is_ok());
    }
}
