//! Health as balancers ask for it: `grpc.health.v1.Health` on the node's own port.

use std::time::Duration;

use slim_node::NodeConfig;

use crate::common::{Client, End, RawConnection, RawStream, TestNode, config, within};

/// A `HealthCheckResponse` with this status, and a `HealthCheckRequest` for this service.
fn status(status: u8) -> Vec<u8> {
    vec![0x08, status]
}

fn about(service: &str) -> Vec<u8> {
    match service.len() as u8 {
        0 => Vec::new(),
        len => [&[0x0a, len], service.as_bytes()].concat(),
    }
}

const SERVICE: &str = "dataplane.proto.v1.DataPlaneService";
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

async fn ask(connection: &mut RawConnection, method: &str, service: &str) -> RawStream {
    let stream = connection.call(&format!("grpc.health.v1.Health/{method}")).await.unwrap();
    stream.send_bytes(&about(service)).await;
    stream
}

#[tokio::test]
async fn a_node_that_takes_links_is_serving() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::open(node.addr).await;
    for service in ["", SERVICE] {
        let mut call = ask(&mut connection, "Check", service).await;
        assert_eq!(call.next_bytes().await.unwrap(), status(SERVING), "{service}");
        assert_eq!(call.end().await, End::Status("0".to_owned()));
    }
    let mut call = ask(&mut connection, "Check", "other.Service").await;
    assert_eq!(call.end().await, End::Status("5".to_owned()));
    let mut call = ask(&mut connection, "List", "").await;
    assert_eq!(call.next_bytes().await, None);
    assert_eq!(node.metrics().opened_links, 0, "questions are no links");
}

#[tokio::test]
async fn who_watches_is_told_of_the_end_before_it_comes() {
    let drain_timeout = Duration::from_secs(600);
    let mut node = TestNode::start_with(NodeConfig { drain_timeout, ..config() }).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let mut connection = RawConnection::open(node.addr).await;
    let mut watch = ask(&mut connection, "Watch", SERVICE).await;
    let mut unknown = ask(&mut connection, "Watch", "other.Service").await;
    assert_eq!(watch.next_bytes().await.unwrap(), status(SERVING));
    assert_eq!(unknown.next_bytes().await.unwrap(), status(SERVICE_UNKNOWN));
    node.stop();
    assert_eq!(watch.next_bytes().await.unwrap(), status(NOT_SERVING));
    for call in [&mut watch, &mut unknown] {
        assert_eq!(call.end().await, End::Status("0".to_owned()));
    }
    bob.end().await;
    node.ended().await;
}

#[tokio::test]
async fn a_question_keeps_its_connection_but_not_the_place_of_others() {
    let node = TestNode::start_with(NodeConfig {
        // Less than it stays, and enough for bob on a busy machine.
        negotiation_timeout: Duration::from_millis(250),
        max_connections: 1,
        ..config()
    })
    .await;
    let mut connection = RawConnection::open(node.addr).await;
    let mut watch = ask(&mut connection, "Watch", "").await;
    assert_eq!(watch.next_bytes().await.unwrap(), status(SERVING));
    // Others come only once it has gone, and it goes because they wait.
    Client::start(&node, "bob", 2).await;
    within(async {
        while !connection.is_closed().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(node.metrics().cut_connections, 1);
}

#[tokio::test]
async fn what_is_no_question_costs_only_its_call() {
    let node = TestNode::start_with(NodeConfig {
        negotiation_timeout: Duration::from_millis(50),
        ..config()
    })
    .await;
    let mut connection = RawConnection::open(node.addr).await;
    let mut bad = connection.call("grpc.health.v1.Health/Check").await.unwrap();
    bad.send_bytes(&[0xff; 20]).await;
    assert_eq!(bad.end().await, End::Status("5".to_owned()));
    let mut long = connection.call("grpc.health.v1.Health/Check").await.unwrap();
    long.send_bytes(&about(&"x".repeat(100)).repeat(1000)).await;
    assert_eq!(long.next_bytes().await, None);
    // Nor is one waited for that says nothing.
    let mut silent = connection.call("grpc.health.v1.Health/Watch").await.unwrap();
    assert_eq!(silent.next_bytes().await, None);
}
