//! The node as whoever runs it sees it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use slim_node::NodeConfig;
use slim_proto::{Header, Message, Name, UNICAST};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{
    Client, End, RawStream, TestNode, any, config, name, ok, publish, subscription, within,
};

const DOCUMENT: &str = include_str!("../../../../docs/operations.md");

fn observed() -> NodeConfig {
    NodeConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() }
}

async fn start() -> (TestNode, SocketAddr) {
    let node = TestNode::start_with(observed()).await;
    let admin = node.admin.unwrap();
    (node, admin)
}

/// Sends this, and reads to the end: the status, and what comes behind the head.
async fn exchange(admin: SocketAddr, request: &str) -> (u16, String) {
    let mut tcp = within(TcpStream::connect(admin)).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Who is cut off after the answer has got it all the same.
    within(tcp.read_to_end(&mut answer)).await.ok();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {answer:?}"));
    (status.parse().unwrap(), body.to_owned())
}

async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    exchange(admin, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

async fn json(admin: SocketAddr, path: &str) -> Value {
    let (status, body) = get(admin, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asks again until it is as wanted: what a node does after its last answer is seen here.
async fn until(admin: SocketAddr, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    within(async {
        loop {
            let page = json(admin, path).await;
            if wanted(&page) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_node_that_takes_links_is_healthy_and_ready() {
    let (_node, admin) = start().await;
    assert_eq!(get(admin, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(admin, "/readyz").await, (200, "ready\n".to_owned()));
    let (status, index) = get(admin, "/").await;
    assert_eq!(status, 200);
    for page in ["/metrics", "/healthz", "/readyz", "/connections", "/routes"] {
        assert!(index.contains(page), "{index}");
    }
    let (status, body) = get(admin, "/metric").await;
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "{body}");
    let post = "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(exchange(admin, &post.replace("x\r\n", "x\r\nconnection: close\r\n")).await.0, 405);
    let head = "HEAD /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(admin, head).await, (200, String::new()));
    assert_eq!(get(admin, "/connections?limit=0").await.0, 400);
    assert_eq!(get(admin, "/connections?name=a/b/c").await.0, 400);
}

#[tokio::test]
async fn a_node_without_an_admin_address_has_none() {
    assert_eq!(TestNode::start().await.admin, None);
}

#[tokio::test]
async fn a_taken_admin_address_is_an_error_that_names_it() {
    let (_node, admin) = start().await;
    let config = NodeConfig { admin: Some(admin), ..config() };
    let error = slim_node::Node::bind(config).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {admin} for --admin: ")), "{error}");
}

#[tokio::test]
async fn links_are_shown_with_their_names_and_what_they_have_done() {
    let (node, admin) = start().await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let group = name("group", 9);
    assert_eq!(bob.subscribe(&group, 1).await, ok(1));
    let alice = Client::connect(&node, "alice", 1).await;
    alice.tell(&bob.name, "hello").await;
    assert_eq!(bob.next_text().await, "hello");
    let page =
        until(admin, "/connections", |page| page["connections"][1]["received"]["messages"] == 1)
            .await;
    assert_eq!(
        (&page["total"], &page["truncated"], &page["next"]),
        (&2.into(), &0.into(), &Value::Null)
    );
    let (bobs, alices) = (&page["connections"][0], &page["connections"][1]);
    let names: Vec<_> = [&bob.name, &group].map(Name::to_string).to_vec();
    assert_eq!((&bobs["names"], &bobs["names_total"]), (&names.into(), &2.into()));
    assert_eq!(bobs["received"]["messages"], 2, "two subscriptions");
    assert_eq!(bobs["delivered"]["messages"], 1);
    let bytes = |flow: &Value| flow["bytes"].as_u64().unwrap();
    // A hop takes nothing away: the count of hops and the MAC have the same length.
    assert_eq!(bytes(&bobs["delivered"]), bytes(&alices["received"]));
    assert_eq!((&alices["names"], &alices["names_total"]), (&Value::Array(vec![]), &0.into()));
    for link in [bobs, alices] {
        assert_eq!((&link["type"], &link["state"]), (&"edge".into(), &"good".into()));
        assert_eq!((&link["has_mac"], &link["queued_bytes"]), (&true.into(), &0.into()));
        assert!(link["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{link}");
        assert!(link["since"].as_str().unwrap().ends_with('Z'), "{link}");
        assert!(link["received"]["bytes_per_second"].is_number(), "{link}");
    }
    // Over the last few seconds.
    until(admin, "/connections", |page| {
        page["connections"][0]["delivered"]["messages_per_second"] != 0.0
    })
    .await;

    assert_eq!(bob.unsubscribe(&group, 1).await, ok(1));
    let page = json(admin, "/connections").await;
    assert_eq!(page["connections"][0]["names"], Value::from(vec![bob.name.to_string()]));
    drop(bob);
    let page = until(admin, "/connections", |page| page["total"] == 1).await;
    assert_eq!(page["connections"][0]["link"], alices["link"]);
}

#[tokio::test]
async fn many_links_are_shown_a_page_at_a_time() {
    let (node, admin) = start().await;
    let mut clients = Vec::new();
    for id in 0..7 {
        clients.push(Client::start(&node, "client", id).await);
    }
    let (mut seen, mut after) = (Vec::new(), Value::from(0));
    while !after.is_null() {
        let page = json(admin, &format!("/connections?limit=3&after={after}")).await;
        let links = page["connections"].as_array().unwrap().clone();
        seen.extend(links.iter().map(|link| link["link"].as_u64().unwrap()));
        assert_eq!(page["truncated"], 7 - seen.len());
        assert_eq!(page["total"], 7);
        after = page["next"].clone();
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    let (mut seen, mut after) = (0, Value::from(0));
    while !after.is_null() {
        let page = json(admin, &format!("/routes?limit=3&after={after}")).await;
        seen += page["routes"].as_array().unwrap().len();
        assert_eq!(page["truncated"], 7 - seen);
        after = page["next"].clone();
    }
    assert_eq!(seen, 7);
}

#[tokio::test]
async fn a_route_tells_who_has_subscribed_to_a_name() {
    let (node, admin) = start().await;
    let (_one, two) = (Client::start(&node, "bob", 1).await, Client::start(&node, "bob", 2).await);
    let mut three = Client::connect(&node, "bob", 3).await;
    assert_eq!(three.subscribe(&two.name, 1).await, ok(1));
    let _other = Client::start(&node, "other", 1).await;
    let page = json(admin, "/routes?name=org/ns/bob").await;
    assert_eq!((&page["total"], &page["truncated"]), (&2.into(), &0.into()));
    let routes = page["routes"].as_array().unwrap();
    let route = |id: u128| {
        let id = slim_proto::NameId(id).to_string();
        routes.iter().find(|route| route["id"] == id.as_str()).unwrap()
    };
    assert_eq!(route(1)["name"], "org/ns/bob");
    assert_eq!(route(1)["links"], Value::from(vec![1]));
    assert_eq!((&route(2)["links"], &route(2)["links_total"]), (&vec![2, 3].into(), &2.into()));
    assert_eq!(json(admin, "/routes?name=org/ns/nobody").await["total"], 0);
    assert_eq!(json(admin, "/routes").await["total"], 3);
    let page = json(admin, "/routes?name=org/ns/bob&limit=1").await;
    assert_eq!(page["truncated"], 1);
}

#[tokio::test]
async fn a_name_whose_text_is_a_lie_is_shown_as_its_hashes() {
    let (node, admin) = start().await;
    let mut liar = RawStream::start(node.addr).await;
    let hidden = name("hidden", 1).without_text();
    liar.send_signed(&Message::Subscribe(subscription(&hidden, 5))).await;
    assert_eq!(liar.next().await, Some(Message::SubscriptionAck(ok(5))));
    let page = json(admin, "/connections").await;
    assert_eq!(page["connections"][0]["names"][0], hidden.to_string());
    let page = json(admin, "/routes").await;
    assert_eq!(page["routes"][0]["name"], hidden.readable());
    // Who tells the text of the same name tells it for all.
    let _honest = Client::start(&node, "hidden", 1).await;
    assert_eq!(json(admin, "/routes").await["routes"][0]["name"], "org/ns/hidden");
}

/// The order that makes applications come back: not ready, then no port, then what is
/// queued, then the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_says_so_closes_its_port_and_sends_what_is_queued() {
    const MESSAGES: usize = 40;
    let mut node =
        TestNode::start_with(NodeConfig { drain_timeout: Duration::from_secs(600), ..observed() })
            .await;
    let (addr, admin) = (node.addr, node.admin.unwrap());
    let mut slow = RawStream::start(addr).await;
    slow.send_signed(&Message::Subscribe(subscription(&name("slow", 2), 5))).await;
    assert_eq!(slow.next().await, Some(Message::SubscriptionAck(ok(5))));
    let sender = RawStream::start(addr).await;
    let header = Header::new(name("alice", 1), name("slow", 2), UNICAST);
    let message = publish(header, vec![b'x'; 16 * 1024]);
    for _ in 0..MESSAGES {
        sender.send_signed(&message).await;
    }
    node.until(|metrics| metrics.delivered as usize == MESSAGES).await;
    let page = json(admin, "/connections").await;
    assert!(page["connections"][0]["queued_bytes"].as_u64().unwrap() > 0, "{page}");

    node.stop();
    within(async {
        while get(admin, "/readyz").await.0 != 503 {
            tokio::task::yield_now().await;
        }
        // Nobody reaches it any more, long before it goes.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(admin, "/healthz").await.0, 200);
    assert!(get(admin, "/metrics").await.1.contains("\nslim_ready 0\n"));
    for _ in 0..MESSAGES {
        assert!(matches!(slow.next().await, Some(Message::Publish(_))));
    }
    assert_eq!(slow.end().await, End::Status("0".to_owned()));
    node.ended().await;
    assert!(TcpStream::connect(admin).await.is_err(), "the last to go");
}

#[tokio::test]
async fn who_reads_too_slowly_is_seen_to() {
    let node = TestNode::start_with(NodeConfig {
        queue_bytes: 64 * 1024,
        slow_subscriber_grace: Duration::from_secs(600),
        ..observed()
    })
    .await;
    let admin = node.admin.unwrap();
    let mut stuck = RawStream::start(node.addr).await;
    stuck.send_signed(&Message::Subscribe(subscription(&name("stuck", 2), 5))).await;
    assert_eq!(stuck.next().await, Some(Message::SubscriptionAck(ok(5))));
    let sender = RawStream::start(node.addr).await;
    let header = Header::new(name("alice", 1), name("stuck", 2), UNICAST);
    let message = publish(header, vec![b'x'; 30_000]);
    for _ in 0..10 {
        sender.send_signed(&message).await;
    }
    until(admin, "/connections", |page| page["connections"][0]["state"] == "behind").await;
    let metrics = get(admin, "/metrics").await.1;
    assert!(metrics.contains("\nslim_slow_links 1\n"), "{metrics}");
    // Once it reads again, all is well.
    for _ in 0..10 {
        assert!(matches!(stuck.next().await, Some(Message::Publish(_))));
    }
    until(admin, "/connections", |page| page["connections"][0]["state"] == "good").await;
}

#[tokio::test]
async fn who_says_little_too_much_or_nothing_keeps_nobody_out() {
    let (node, admin) = start().await;
    // More than there may be, and none of them says what it wants.
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut tcp = within(TcpStream::connect(admin)).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        silent.push(tcp);
    }
    assert_eq!(get(admin, "/readyz").await.0, 200);
    drop(silent);
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    assert_eq!(exchange(admin, &long).await.0, 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert_eq!(exchange(admin, &many).await.0, 431);
    assert_eq!(exchange(admin, "\0\0\0\r\n\r\n").await.0, 400);
    // The node has not noticed.
    Client::start(&node, "bob", 2).await;
}

/// Name, type and labels of each metric, and what it says of itself, as a table.
fn table(metrics: &str) -> String {
    let mut rows = String::new();
    for block in metrics.split("# HELP ").skip(1) {
        let mut lines = block.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
        let mut values = Vec::new();
        let mut key = "";
        for sample in lines {
            let labels = sample.strip_prefix(name).unwrap().split_once(' ').unwrap().0;
            let Some(label) = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')) else {
                continue;
            };
            for pair in label.split(',') {
                let (found, value) = pair.split_once('=').unwrap();
                key = found;
                values.push((found, value.trim_matches('"')));
            }
        }
        let labels = match (name, &values[..]) {
            ("slim_build_info", _) => values.iter().map(|(k, _)| format!("`{k}`")).collect(),
            (_, []) => Vec::new(),
            _ => {
                vec![format!("`{key}`: {}", Vec::from_iter(values.iter().map(|v| v.1)).join(", "))]
            }
        };
        rows += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    rows
}

#[tokio::test]
async fn the_metrics_are_those_of_the_document() {
    let (_node, admin) = start().await;
    let (status, metrics) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
    }
    let (_, rest) =
        DOCUMENT.split_once("| metric | type | labels | |\n|---|---|---|---|\n").unwrap();
    let documented: String = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    let table = table(&metrics);
    assert_eq!(documented, table, "docs/operations.md should have\n{table}");
}

/// An application that goes by the names of the reference finds nothing in its way.
#[tokio::test]
async fn looking_does_not_disturb_who_publishes() {
    let (node, admin) = start().await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let alice = Client::connect(&node, "alice", 1).await;
    let looking = tokio::spawn(async move {
        for path in ["/metrics", "/connections", "/routes"].iter().cycle().take(30) {
            assert_eq!(get(admin, path).await.0, 200);
        }
    });
    for number in 0..500 {
        alice.tell(&any("bob"), &number.to_string()).await;
        assert_eq!(bob.next_text().await, number.to_string());
    }
    within(looking).await.unwrap();
}
