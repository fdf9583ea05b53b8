//! Three nodes on a backbone, each with a network of its own for its applications, so
//! that an application reaches its own node only.

use slim_containers::group::Group;
use slim_containers::member::Member;
use slim_containers::node::Node;
use slim_containers::site::{Network, Site};

/// A mesh, and a group of six that has said something: members 0 and 3 are at node 0,
/// 1 and 4 at node 1, 2 and the moderator at node 2.
struct Mesh {
    group: Group,
    nodes: Vec<Node>,
    backbone: Network,
    /// Dropped last, so that the others can still show what they logged.
    site: Site,
}

async fn mesh() -> Mesh {
    let site = Site::new().await;
    let backbone = site.network("backbone").await;
    let mut networks = Vec::new();
    for number in 0..3 {
        networks.push(site.network(&format!("net-{number}")).await);
    }
    let nodes = Node::start_mesh(&site, &backbone, &networks).await;
    let places: Vec<(&Node, &Network)> =
        (0..6).map(|number| (&nodes[number % 3], &networks[number % 3])).collect();
    let mut group = Group::form(&site, &places).await;
    // A stream begins with what arrives first: of what is said before, nobody knows.
    group.speak(1).await;
    group.settle().await;
    Mesh { group, nodes, backbone, site }
}

/// Nobody is told, and the connections between the nodes look alive meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_backbone_costs_no_line() {
    let mut mesh = mesh().await;
    mesh.site.unplug(&mesh.nodes[1].program, &mesh.backbone).await;
    mesh.group.speak(20).await;
    // Who is on the same side hears each other.
    let across = "line 21 of agntcy/ns/moderator";
    mesh.group.members[0].until_heard(across).await;
    mesh.group.members[1].until_heard("line 21 of agntcy/ns/client-4").await;
    let account = mesh.group.members[1].account();
    let mut heard = account.events("message");
    assert!(!heard.any(|event| event["payload"] == across), "the backbone is cut");
    mesh.site.plug(&mesh.nodes[1].program, &mesh.backbone).await;
    mesh.group.settle().await;
    mesh.group.speak(5).await;
    mesh.group.end().await;
}

/// So long that both sides count each other as offline. What is said meanwhile is told
/// as lost, by name, and heard all the same when they are back.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_cut_is_told_by_name_and_made_up_for() {
    let mut mesh = mesh().await;
    for number in [1, 4] {
        mesh.group.members[number].cut_off();
    }
    mesh.site.unplug(&mesh.nodes[1].program, &mesh.backbone).await;
    mesh.group.speak(5).await;
    for member in &mesh.group.members {
        let account = member.account();
        for other in mesh.group.members.iter().map(Member::account) {
            if other.was_cut_off != account.was_cut_off {
                member.until_presence(&other.name, "offline").await;
            }
        }
    }
    let lost = mesh.group.moderator().until_told("lost", |_| true).await;
    assert_eq!(lost["members"].as_array().unwrap().len(), 2, "{lost}");
    mesh.group.speak(5).await;
    mesh.site.plug(&mesh.nodes[1].program, &mesh.backbone).await;
    Node::until_joined(&mesh.nodes).await;
    mesh.group.settle().await;
    mesh.group.speak(5).await;
    mesh.group.end().await;
}

/// Each node in turn is asked to end and started again, while all members speak.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_costs_no_line() {
    let mut mesh = mesh().await;
    let rolling = async {
        for node in &mesh.nodes {
            node.restart().await;
            Node::until_joined(&mesh.nodes).await;
        }
    };
    mesh.group.speak_while(rolling).await;
    for member in &mesh.group.members {
        member.until_told("reconnected", |_| true).await;
    }
    mesh.group.speak(5).await;
    mesh.group.end().await;
}
