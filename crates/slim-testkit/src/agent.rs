//! A SPIFFE agent: its Workload API gives everybody who connects to its socket tokens of
//! whatever identity of its trust domain is asked for, and certificates of those that are
//! registered.
//!
//! Written from the standard (SPIFFE Workload API §6, SPIFFE Workload Endpoint §5), and
//! not with the library that talks to it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use slim_auth::{JwtSigningKey, SigningKey};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Who asks for nobody in particular is this one.
const SOMEBODY: &str = "workload";

#[derive(Clone, PartialEq, Message)]
struct SvidRequest {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
    #[prost(string, tag = "2")]
    spiffe_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(string, tag = "2")]
    svid: String,
}

#[derive(Clone, PartialEq, Message)]
struct BundlesResponse {
    #[prost(btree_map = "string, bytes", tag = "1")]
    bundles: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct CertificatesResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Certificate>,
}

#[derive(Clone, PartialEq, Message)]
struct Certificate {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct AuthoritiesResponse {
    #[prost(btree_map = "string, bytes", tag = "2")]
    bundles: BTreeMap<String, Vec<u8>>,
}

/// An agent, and the authority behind it. Dropped, it is gone.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    authority: Arc<Authority>,
    serving: Option<JoinHandle<()>>,
}

/// What is the same before and after a restart.
#[derive(Debug)]
struct Authority {
    domain: String,
    certificates: Vec<Certificate>,
    state: Mutex<State>,
    /// Counts the changes of the keys.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// The last one signs.
    keys: Vec<(String, JwtSigningKey)>,
    /// JWKS of other trust domains.
    federated: BTreeMap<String, String>,
    lifetime: i64,
    is_open: bool,
    made: u64,
    issued: u64,
}

impl Agent {
    /// An agent of this trust domain, at this path. Its tokens last an hour.
    ///
    /// # Errors
    /// If nothing can listen there.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn start(path: &Path, domain: &str) -> io::Result<Self> {
        Self::start_with(path, domain, &[SOMEBODY])
    }

    /// The same, where these have certificates, too.
    ///
    /// # Errors
    /// If nothing can listen there.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn start_with(path: &Path, domain: &str, names: &[&str]) -> io::Result<Self> {
        let state = State {
            keys: Vec::new(),
            federated: BTreeMap::new(),
            lifetime: 3600,
            is_open: true,
            made: 0,
            issued: 0,
        };
        let authority = Authority {
            domain: domain.to_owned(),
            certificates: certificates(domain, names).expect("certificates"),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        };
        let mut agent =
            Self { path: path.to_owned(), authority: Arc::new(authority), serving: None };
        agent.rotate();
        agent.restart()?;
        Ok(agent)
    }

    /// Ends all that is under way, and is not there any more.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // That it was aborted is what it says.
            serving.await.ok();
        }
        std::fs::remove_file(&self.path).ok();
    }

    /// Is there again, with the same keys.
    ///
    /// # Errors
    /// If nothing can listen there.
    pub fn restart(&mut self) -> io::Result<()> {
        let listener = UnixListener::bind(&self.path)?;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.authority))));
        Ok(())
    }

    /// Signs with a new key from now on. The old ones still verify.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn rotate(&self) {
        let pem = SigningKey::new_pem().expect("a key");
        let key = JwtSigningKey::from_any_pem(&pem).expect("it was just made");
        let mut state = self.authority.state();
        state.made += 1;
        let id = format!("{}-{}", self.authority.domain, state.made);
        state.keys.push((id, key));
        drop(state);
        self.authority.changed();
    }

    /// What was not signed with the newest key does not verify any more.
    pub fn forget_old_keys(&self) {
        let mut state = self.authority.state();
        let newest = state.keys.len().saturating_sub(1);
        state.keys.drain(..newest);
        drop(state);
        self.authority.changed();
    }

    /// Gives out the keys of another trust domain, too, as they are now.
    pub fn federate(&self, other: &Self) {
        let jwks = other.authority.jwks();
        let domain = other.authority.domain.clone();
        self.authority.state().federated.insert(domain, jwks);
        self.authority.changed();
    }

    /// How long tokens last from now on, in seconds; they may have expired before.
    pub fn set_lifetime(&self, seconds: i64) {
        self.authority.state().lifetime = seconds;
    }

    /// Whether it knows those who ask.
    pub fn set_open(&self, is_open: bool) {
        self.authority.state().is_open = is_open;
    }

    /// How many tokens it has made.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.authority.state().issued
    }

    /// A token of this authority that says anything.
    ///
    /// # Panics
    /// If the claims are no JSON object.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.authority.state().sign(claims)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl State {
    fn sign(&self, claims: &Value) -> String {
        let (id, key) = self.keys.last().expect("there is always one");
        key.sign_claims(id, claims.as_object().expect("claims are an object")).expect("it signs")
    }
}

impl Authority {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn jwks(&self) -> String {
        let state = self.state();
        let keys = state.keys.iter().map(|(id, key)| {
            let mut jwk = key.verifying_key().with_id(id).to_jwk().expect("no secret");
            // As SPIRE writes them.
            jwk["use"] = json!("jwt-svid");
            jwk.as_object_mut().expect("an object").remove("alg");
            jwk
        });
        json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
    }

    fn svid(&self, request: &SvidRequest) -> Result<SvidResponse, Status> {
        if request.audience.is_empty() {
            return Err(Status(3, "audience must be specified"));
        }
        let mut state = self.state();
        let root = format!("spiffe://{}/", self.domain);
        let spiffe_id = match request.spiffe_id.as_str() {
            "" => format!("{root}{SOMEBODY}"),
            id => id.to_owned(),
        };
        if !state.is_open || !spiffe_id.starts_with(&root) {
            return Err(Status(7, "no identity issued"));
        }
        state.issued += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "sub": spiffe_id,
            "aud": request.audience,
            "iat": now,
            "exp": now.saturating_add_signed(state.lifetime),
        });
        let svid = state.sign(&claims);
        Ok(SvidResponse { svids: vec![Svid { spiffe_id, svid }] })
    }

    fn certificates(&self) -> CertificatesResponse {
        CertificatesResponse { svids: self.certificates.clone() }
    }

    fn authorities(&self) -> AuthoritiesResponse {
        let own = self.certificates.first().map(|first| first.bundle.clone()).unwrap_or_default();
        let bundles = BTreeMap::from([(format!("spiffe://{}", self.domain), own)]);
        AuthoritiesResponse { bundles }
    }

    fn bundles(&self) -> BundlesResponse {
        let own = (format!("spiffe://{}", self.domain), self.jwks().into_bytes());
        let federated = self.state().federated.clone();
        let federated = federated
            .into_iter()
            .map(|(domain, jwks)| (format!("spiffe://{domain}"), jwks.into_bytes()));
        BundlesResponse { bundles: federated.chain([own]).collect() }
    }
}

/// Certificates of these names of a trust domain (X.509-SVID §4 and §5).
fn certificates(domain: &str, names: &[&str]) -> Result<Vec<Certificate>, rcgen::Error> {
    let san = |id: &str| Ok::<_, rcgen::Error>(SanType::URI(id.try_into()?));
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(san(&format!("spiffe://{domain}"))?);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let bundle = params.self_signed(&key)?.der().to_vec();
    let issuer = Issuer::new(params, key);
    let certificate = |name: &&str| {
        let spiffe_id = format!("spiffe://{domain}/{name}");
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(san(&spiffe_id)?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        let key = KeyPair::generate()?;
        let chain = params.signed_by(&key, &issuer)?.der().to_vec();
        Ok(Certificate { spiffe_id, chain, key: key.serialize_der(), bundle: bundle.clone() })
    };
    names.iter().map(certificate).collect()
}

/// A gRPC status that is not OK.
struct Status(u16, &'static str);

async fn serve(listener: UnixListener, authority: Arc<Authority>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let authority = Arc::clone(&authority);
        let service = service_fn(move |request| answer(request, Arc::clone(&authority)));
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // A client that goes is none of our faults.
            connection.await.ok();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    authority: Arc<Authority>,
) -> Result<Response<Frames>, Infallible> {
    let (head, body) = request.into_parts();
    let (frames, body_of_answer) = Frames::new();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // What sees to it that nobody is made to ask by a web page.
    let is_aware = head.headers.get("workload.spiffe.io").is_some_and(|value| value == "true");
    match (is_aware, head.uri.path()) {
        (false, _) => frames.end(Some(Status(3, "security header missing from request"))).await,
        (true, "/SpiffeWorkloadAPI/FetchJWTSVID") => {
            let message = body.get(5..).unwrap_or_default();
            let asked = SvidRequest::decode(message).map_err(|_| Status(3, "malformed request"));
            match asked.and_then(|asked| authority.svid(&asked)) {
                Ok(svid) => {
                    frames.message(&svid).await;
                    frames.end(None).await;
                }
                Err(status) => frames.end(Some(status)).await,
            }
        }
        (true, "/SpiffeWorkloadAPI/FetchJWTBundles") => {
            tokio::spawn(stream(authority, frames, Authority::bundles));
        }
        (true, "/SpiffeWorkloadAPI/FetchX509SVID") => {
            tokio::spawn(stream(authority, frames, Authority::certificates));
        }
        (true, "/SpiffeWorkloadAPI/FetchX509Bundles") => {
            tokio::spawn(stream(authority, frames, Authority::authorities));
        }
        (true, _) => frames.end(Some(Status(12, "not implemented"))).await,
    }
    let mut response = Response::new(body_of_answer);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// Tells it now, and again whenever something has changed.
async fn stream<M: Message>(
    authority: Arc<Authority>,
    frames: Sender,
    what: impl Fn(&Authority) -> M,
) {
    let mut changes = authority.changes.subscribe();
    while frames.message(&what(&authority)).await {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = frames.0.closed() => return,
        }
    }
}

/// The writing end of an answer.
struct Sender(mpsc::Sender<Frame<Bytes>>);

impl Sender {
    /// False: nobody reads any more.
    async fn message(&self, message: &impl Message) -> bool {
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.encoded_len()).expect("small"));
        message.encode(&mut bytes).expect("there is room");
        self.0.send(Frame::data(bytes.freeze())).await.is_ok()
    }

    async fn end(&self, status: Option<Status>) {
        let Status(code, words) = status.unwrap_or(Status(0, ""));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        trailers.insert("grpc-message", HeaderValue::from_static(words));
        // Whoever asked may be gone.
        self.0.send(Frame::trailers(trailers)).await.ok();
    }
}

/// The body of an answer.
#[derive(Debug)]
struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl Frames {
    /// With room for a whole answer that is no stream.
    fn new() -> (Sender, Self) {
        let (sender, frames) = mpsc::channel(2);
        (Sender(sender), Self(frames))
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}
