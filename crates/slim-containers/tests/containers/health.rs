//! The image's health check.

use slim_containers::group::Group;
use slim_containers::node::Node;
use slim_containers::site::Site;
use slim_containers::until;
use testcontainers::bollard::models::HealthStatusEnum;

/// The one that the image has, as it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_becomes_healthy() {
    let site = Site::new().await;
    let network = site.network("net").await;
    let node = Node::start_with(&site, "node", &network, |request| request).await;
    assert_eq!(node.health().await, 0);
}

/// Somebody who does not read keeps the node from ending for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_is_unhealthy_and_then_gone() {
    let site = Site::new().await;
    let network = site.network("net").await;
    let node = Node::start(&site, &network).await;
    // Nothing is to be sent twice.
    let mut group = Group::form_with(&site, &[(&node, &network); 2], &["--timeout=120"]).await;
    group.members[0].program.pause().await;
    // More than a connection takes that nobody reads, less than the node queues.
    let long = "x".repeat(64 * 1024);
    until("something is queued", async || {
        group.moderator().say(&long).await;
        let links = node.links("edge").await?;
        let queued = links.iter().any(|link| link["queued_bytes"].as_u64() > Some(0));
        if queued { Ok(()) } else { Err(format!("{links:?}")) }
    })
    .await;
    node.program.signal("SIGTERM").await;
    node.program.until_health(HealthStatusEnum::UNHEALTHY).await;
    assert_eq!(node.health().await, 1);
    group.members[0].program.unpause().await;
    assert_eq!(node.program.ended().await, 0);
}
