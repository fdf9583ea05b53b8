//! The node for whoever runs it, over HTTP/1.1: metrics, health, links and routes.
//!
//! Only looks: nothing can be changed here. Whoever asks is bounded in number, in what
//! they may send and in the time that they may take, and answers have a largest size.

mod pages;
mod prometheus;
mod rates;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, warn};

use self::pages::Query;
use self::rates::Rates;
use crate::view::View;

/// Connections at once. Further ones wait with the system until one goes.
const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take, the first as well as the next one on the same
/// connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last: one that does not read its answer keeps no place for
/// longer.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long it may take to its end after that.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// Bytes and lines of a request's head; a browser sends less than a tenth.
const MAX_HEAD_LEN: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// How often links are looked at for their rates.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Pause after an error of the listener, most likely too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const INDEX: &str = "\
/metrics       counters, for Prometheus
/healthz       200 while the process works
/readyz        200 while it takes links, 503 from when it was told to end
/connections   links, as JSON; ?limit=N&after=LINK
/routes        names and who has subscribed to them, as JSON; ?limit=N&after=PLACE or ?name=org/ns/app
";

/// The address at which a node can be looked at.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    local_addr: SocketAddr,
}

/// What all requests are answered from.
struct Answers {
    view: View,
    rates: Rates,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until it is dropped.
    pub(crate) async fn run(self, view: View) -> Infallible {
        let answers = Arc::new(Answers { view, rates: Rates::default() });
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut samples = interval(SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                (tcp, place) = self.accept(&places) => {
                    connections.spawn(serve(tcp, place, Arc::clone(&answers)));
                }
                _ = samples.tick() => answers.rates.sample(&answers.view).await,
                // Of those that have ended nothing is left to know.
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
        let place = Arc::clone(places).acquire_owned().await.expect("it is never closed");
        loop {
            match self.listener.accept().await {
                Ok((tcp, _)) => return (tcp, place),
                Err(error) => {
                    warn!(%error, "cannot accept a connection of --admin");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn serve(tcp: TcpStream, _place: OwnedSemaphorePermit, answers: Arc<Answers>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_LEN)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(tcp), service);
    let mut connection = pin!(connection);
    let mut end = timeout(LIFETIME, &mut connection).await;
    if end.is_err() {
        // Who asks again and again on one connection gets its last answer whole.
        connection.as_mut().graceful_shutdown();
        end = timeout(LAST_ANSWER, connection).await;
    }
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection of --admin"),
        Err(_) => debug!("a connection of --admin has had its time"),
    }
}

impl Answers {
    /// What a request asks for. Its body is not read.
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let path = request.uri().path();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer
                .headers_mut()
                .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/" => text(StatusCode::OK, INDEX),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.view.health.is_serving() => text(StatusCode::OK, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/metrics" => self.metrics().await,
            "/connections" => self.page(query, pages::connections),
            "/routes" => self.page(query, pages::routes),
            _ => text(StatusCode::NOT_FOUND, format!("no such page; there are\n{INDEX}")),
        }
    }

    async fn metrics(&self) -> Answer {
        let families = self.view.families().await;
        let text = prometheus::to_text(&families);
        typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    fn page<P: serde::Serialize>(
        &self,
        query: &str,
        page: impl FnOnce(&View, &Rates, &Query) -> Result<P, String>,
    ) -> Answer {
        let page = Query::parse(query).and_then(|query| page(&self.view, &self.rates, &query));
        match page {
            Ok(page) => {
                let json = serde_json::to_vec(&page).expect("a page has no maps and no errors");
                typed(StatusCode::OK, "application/json", json)
            }
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    // It is of this moment.
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    answer
}
