//! A node's admin address, asked over HTTP: `slim-node --admin`.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read: several times what a page takes.
const MAX_ANSWER_LEN: usize = 8 * 1024 * 1024;

/// Links are read up to so many pages of a thousand; of the rest there is the number.
const MAX_PAGES: usize = 10;

/// Where it is: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin(String);

/// Reads the option: `http://host:port` or `host:port`.
impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
            !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok()
        });
        if is_address {
            Ok(Self(address.to_owned()))
        } else {
            Err("expected the address of --admin of a node, such as 127.0.0.1:46358".to_owned())
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// There is no answer, or none that we understand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens there, or it cannot be found.
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// It took longer than [`TIMEOUT`].
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// What answers does not speak HTTP as it should.
    #[error("it is no admin address: {0}")]
    Http(String),
    /// It says no.
    #[error("it answers {status}: {said}")]
    Status {
        /// The status of HTTP.
        status: u16,
        /// The first line of the answer.
        said: String,
    },
    /// It is not what we expect.
    #[error("its answer is not understood: {0}")]
    Content(String),
}

/// What it answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What its clock says.
    pub(crate) date: Option<OffsetDateTime>,
    pub(crate) text: String,
}

impl Admin {
    /// Asks for a page, whatever the answer's status.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, AskError> {
        timeout(TIMEOUT, self.exchange(path)).await.map_err(|_| AskError::TimedOut)?
    }

    /// Asks for a page, which has to be there.
    pub(crate) async fn text(&self, path: &str) -> Result<String, AskError> {
        let Answer { status, text, .. } = self.get(path).await?;
        match status {
            200 => Ok(text),
            _ => Err(AskError::Status {
                status,
                said: text.lines().next().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// The same of JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let text = self.text(path).await?;
        serde_json::from_str(&text).map_err(|error| AskError::Content(error.to_string()))
    }

    /// The links, and how many there are beside them.
    pub(crate) async fn links(&self) -> Result<(Vec<Link>, u64), AskError> {
        let (mut links, mut next, mut rest) = (Vec::new(), Some(0), 0);
        for _ in 0..MAX_PAGES {
            let Some(after) = next else { break };
            let page: Connections = self.json(&format!("/connections?after={after}")).await?;
            links.extend(page.connections);
            (next, rest) = (page.next, page.truncated);
        }
        Ok((links, rest))
    }

    async fn exchange(&self, path: &str) -> Result<Answer, AskError> {
        let http = |error: &dyn std::error::Error| AskError::Http(error.to_string());
        let tcp = TcpStream::connect(&self.0).await?;
        let (mut requests, connection) =
            http1::handshake(TokioIo::new(tcp)).await.map_err(|error| http(&error))?;
        let request = Request::get(path)
            .header(header::HOST, &self.0)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| http(&error))?;
        let answer = async {
            let response = requests.send_request(request).await.map_err(|error| http(&error))?;
            let status = response.status().as_u16();
            let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
            let body = Limited::new(response.into_body(), MAX_ANSWER_LEN).collect().await;
            let body = body.map_err(|error| AskError::Http(error.to_string()))?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status, date, text })
        };
        tokio::pin!(connection);
        tokio::pin!(answer);
        tokio::select! {
            answered = &mut answer => answered,
            // It may end once all of the answer is there.
            _ = &mut connection => answer.await,
        }
    }
}

/// Samples of the text format of Prometheus, by name and labels as they are written.
pub(crate) struct Metrics<'a>(Vec<(&'a str, f64)>);

impl<'a> Metrics<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name, value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// All of a name, with or without labels, added up. 0 if it is not there.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.labelled(name).map(|(_, value)| value).sum()
    }

    /// The samples of a name, by what is between the braces.
    pub(crate) fn labelled(&self, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(key, value)| match key.strip_prefix(name)? {
            "" => Some(("", *value)),
            labels => Some((labels.strip_prefix('{')?.strip_suffix('}')?, *value)),
        })
    }

    /// The value of a label.
    pub(crate) fn label(labels: &'a str, key: &str) -> &'a str {
        let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(found, _)| *found == key).map(|(_, value)| value).next();
        value.unwrap_or_default().trim_matches('"')
    }
}

#[derive(Debug, Deserialize)]
struct Connections {
    connections: Vec<Link>,
    truncated: u64,
    next: Option<u64>,
}

/// A link, as the node shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) link: u64,
    pub(crate) peer: String,
    pub(crate) principals: Vec<String>,
    pub(crate) node_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) since: String,
    pub(crate) names: Vec<String>,
    pub(crate) names_total: u64,
    pub(crate) received: Flow,
    pub(crate) delivered: Flow,
    pub(crate) queued_bytes: u64,
    pub(crate) state: String,
}

/// One direction of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

/// What `/routes` answers.
#[derive(Debug, Deserialize)]
pub(crate) struct Routes {
    pub(crate) routes: Vec<Route>,
    pub(crate) total: u64,
}

/// A name, and the links that have subscribed to it.
#[derive(Debug, Deserialize)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) links: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let check = |text: &str| text.parse::<Admin>().map(|admin| admin.to_string());
        assert_eq!(check("127.0.0.1:46358").unwrap(), "127.0.0.1:46358");
        assert_eq!(check(" http://node:1/ ").unwrap(), "node:1");
        assert_eq!(check("[::1]:80").unwrap(), "[::1]:80");
        for bad in ["", "node", "node:", ":1", "node:99999", "https://node:1", "a b:1"] {
            assert!(check(bad).unwrap_err().contains("such as 127.0.0.1:46358"), "{bad}");
        }
    }
}
