//! From a name and an identity to a connected client.

use std::sync::Arc;
use std::time::Duration;

use slim_auth::{Identity, SharedSecret, SharedSecretError, Verifier};
use slim_link::{
    Authorization, ClientTls, DialConfig, DialError, Link, Target, TargetError, TlsConfigError,
    TlsError,
};
use slim_proto::Name;
use slim_session::{Endpoint, EndpointConfig, IdentityBinding, Invitations};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::Client;
use crate::driver::{Driver, backoff};
use crate::telemetry::Telemetry;

/// How long the node is tried at the start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client to be.
#[derive(Debug)]
pub struct ClientBuilder {
    name: Name,
    identity: Option<(Arc<dyn Identity>, Arc<dyn Verifier>)>,
    connect_timeout: Duration,
    tls: ClientTls,
    authorization: Option<Authorization>,
    sends_data: bool,
    receives_data: bool,
    invitations: Invitations,
    binding: IdentityBinding,
    telemetry: bool,
}

impl ClientBuilder {
    pub(crate) fn new(name: Name) -> Self {
        Self {
            name,
            identity: None,
            connect_timeout: CONNECT_TIMEOUT,
            tls: ClientTls::default(),
            authorization: None,
            sends_data: true,
            receives_data: true,
            invitations: Invitations::default(),
            binding: IdentityBinding::default(),
            telemetry: false,
        }
    }

    /// Identity by a secret that all applications share, at least 32 bytes.
    ///
    /// # Errors
    /// If the secret is too short.
    pub fn shared_secret(self, secret: &str) -> Result<Self, SharedSecretError> {
        let identity =
            Arc::new(SharedSecret::new(&self.name.readable(), secret, &mut rand::rng())?);
        Ok(self.identity(identity.clone(), identity))
    }

    /// Any identity, and what others' are verified with.
    #[must_use]
    pub fn identity(mut self, identity: Arc<dyn Identity>, verifier: Arc<dyn Verifier>) -> Self {
        self.identity = Some((identity, verifier));
        self
    }

    /// How long the node is tried at the start. Default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whom we trust and who we are, where the node's address begins with `https://`
    /// or `wss://`.
    /// Default: the authorities of the system, and no certificate of our own.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = tls;
        self
    }

    /// What the node is shown to let us in, asked for whenever we connect. Default
    /// nothing. It goes in clear where the node's address does not begin with `https://`
    /// or `wss://`.
    #[must_use]
    pub fn authorization(mut self, authorization: Authorization) -> Self {
        self.authorization = Some(authorization);
        self
    }

    /// Whether others may expect data from us. Default true.
    #[must_use]
    pub fn sends_data(mut self, sends: bool) -> Self {
        self.sends_data = sends;
        self
    }

    /// Whether others send us data and await our acknowledgements. Default true.
    #[must_use]
    pub fn receives_data(mut self, receives: bool) -> Self {
        self.receives_data = receives;
        self
    }

    /// Which invitations are taken, decided before anything is joined. Whoever is refused
    /// is told why. Default: all.
    ///
    /// ```
    /// # fn example(builder: slim_client::ClientBuilder) -> slim_client::ClientBuilder {
    /// use slim_client::Invitations;
    ///
    /// builder.invitations(Invitations::decided_by(|invitation| {
    ///     match (invitation.session.mls, invitation.subject) {
    ///         (true, "spiffe://example.org/boss") => Ok(()),
    ///         (false, _) => Err("encrypted sessions only".to_owned()),
    ///         (true, _) => Err("only the boss invites".to_owned()),
    ///     }
    /// }))
    /// # }
    /// ```
    #[must_use]
    pub fn invitations(mut self, invitations: Invitations) -> Self {
        self.invitations = invitations;
        self
    }

    /// What becomes of peers whose names and contents do not follow from their identities.
    /// Default: what they say is dropped.
    #[must_use]
    pub fn identity_binding(mut self, binding: IdentityBinding) -> Self {
        self.binding = binding;
        self
    }

    /// Whether the OpenTelemetry providers that the process has set by the time of
    /// [`connect`](Self::connect) get a span for each message that is published or
    /// delivered, and counters. Default false. The context of a trace goes with its
    /// message, in clear, in the metadata entries `traceparent` and `tracestate`; one that
    /// is in the metadata of a message that is published is continued.
    #[must_use]
    pub fn telemetry(mut self, telemetry: bool) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// Connects to a node, `http://host:port`, `host:port`, `https://host:port` for TLS,
    /// `ws://host:port` or `wss://host:port` for a WebSocket, or `unix:///path`. Done when others can reach us.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(self, target: &str) -> Result<Client, ConnectError> {
        let target: Target = target.parse()?;
        let Some((identity, verifier)) = self.identity else {
            return Err(ConnectError::NoIdentity);
        };
        let deadline = Instant::now() + self.connect_timeout;
        let config = DialConfig {
            tls: self.tls,
            authorization: self.authorization,
            ..DialConfig::default()
        };
        let link = first_link(&target, &config, deadline, self.connect_timeout).await?;

        let mut settings = EndpointConfig::new(self.name, rand::random());
        settings.sends_data = self.sends_data;
        settings.receives_data = self.receives_data;
        settings.invitations = self.invitations;
        settings.binding = self.binding;
        let endpoint = Endpoint::new(settings, identity, verifier);
        let telemetry = self.telemetry.then(|| Arc::new(Telemetry::new()));
        let (client, ready) = Driver::start(endpoint, target.clone(), config, link, telemetry);
        match timeout_at(deadline, ready).await {
            Ok(Ok(Ok(()))) => Ok(client),
            Ok(Ok(Err(reason))) => Err(ConnectError::Refused { target, reason }),
            // No answer, or the link broke and is being tried again.
            Ok(Err(_)) | Err(_) => Err(ConnectError::Unreachable {
                target,
                tried_for: self.connect_timeout,
                reason: "it does not answer the subscription of our name".to_owned(),
            }),
        }
    }
}

/// A bare link to a node, without a name or sessions: what measures the node itself
/// needs no more. Tried for as long as a client would be.
///
/// # Errors
/// See [`ConnectError`].
pub async fn dial(
    target: &str,
    tls: &ClientTls,
    authorization: Option<&Authorization>,
    connect_timeout: Duration,
) -> Result<Link, ConnectError> {
    let deadline = Instant::now() + connect_timeout;
    let config = DialConfig {
        tls: tls.clone(),
        authorization: authorization.cloned(),
        ..DialConfig::default()
    };
    first_link(&target.parse()?, &config, deadline, connect_timeout).await
}

/// Tries until the node is there or time is up.
async fn first_link(
    target: &Target,
    config: &DialConfig,
    deadline: Instant,
    tried_for: Duration,
) -> Result<Link, ConnectError> {
    let mut reason = "no answer".to_owned();
    for attempt in 1.. {
        match timeout_at(deadline, slim_link::dial(target, config)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(DialError::NothingToShow(reason))) => {
                return Err(ConnectError::NothingToShow(reason));
            }
            Ok(Err(error @ (DialError::Refused { .. } | DialError::Unauthenticated(_)))) => {
                return Err(ConnectError::Refused {
                    target: target.clone(),
                    reason: error.to_string(),
                });
            }
            // The node knows us, or not, by our certificate.
            Ok(Err(DialError::Tls(
                error @ (TlsError::WantsCertificate | TlsError::RefusesCertificate(_)),
            ))) => {
                return Err(ConnectError::Refused {
                    target: target.clone(),
                    reason: error.to_string(),
                });
            }
            Ok(Err(DialError::TlsConfig(error))) => return Err(error.into()),
            Ok(Err(error)) if error.is_lasting() => {
                let reason = describe(&error);
                return Err(ConnectError::Insecure { target: target.clone(), reason });
            }
            Ok(Err(error)) => reason = describe(&error),
            Err(_) => break,
        }
        debug!(%target, attempt, %reason, "not connected");
        if timeout_at(deadline, sleep(backoff(attempt))).await.is_err() {
            break;
        }
    }
    Err(ConnectError::Unreachable { target: target.clone(), tried_for, reason })
}

/// An error with its causes, on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// A client could not be connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// [`ClientBuilder::shared_secret`] or [`ClientBuilder::identity`] was not called.
    #[error("a client needs an identity")]
    NoIdentity,
    /// Nobody answers there, or what answers is not a node.
    #[error("no node at {target} after {} s: {reason}", .tried_for.as_secs_f32())]
    Unreachable {
        /// Where.
        target: Target,
        /// How long it was tried.
        tried_for: Duration,
        /// What the last attempt said.
        reason: String,
    },
    /// The files of [`ClientBuilder::tls`] cannot be used.
    #[error(transparent)]
    TlsConfig(#[from] TlsConfigError),
    /// What [`ClientBuilder::authorization`] should give is not there, and why.
    #[error("nothing to show to the node: {0}")]
    NothingToShow(String),
    /// TLS does not come about, and trying again would not help: the node's certificate
    /// is not what it should be, or only one of both speaks TLS.
    #[error("no secure link to {target}: {reason}")]
    Insecure {
        /// Which node.
        target: Target,
        /// What is wrong.
        reason: String,
    },
    /// The node does not want us.
    #[error("{target} refused: {reason}")]
    Refused {
        /// Which node.
        target: Target,
        /// Its reason.
        reason: String,
    },
}
