//! One node, one network.

use slim_containers::group::Group;
use slim_containers::node::Node;
use slim_containers::site::{Network, Site};

/// A group of three that has said something.
struct Chat {
    group: Group,
    node: Node,
    network: Network,
    /// Dropped last, so that the others can still show what they logged.
    site: Site,
}

async fn chat() -> Chat {
    let site = Site::new().await;
    let network = site.network("net").await;
    let node = Node::start(&site, &network).await;
    let mut group = Group::form(&site, &[(&node, &network); 3]).await;
    // A stream begins with what arrives first: of what is said before, nobody knows.
    group.speak(1).await;
    group.settle().await;
    Chat { group, node, network, site }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_hears_everything() {
    let mut chat = chat().await;
    chat.group.speak(20).await;
    chat.group.end().await;
}

/// SIGKILL takes whatever the node had queued.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_costs_no_line() {
    let mut chat = chat().await;
    let killed = async {
        chat.node.program.signal("SIGKILL").await;
        assert_eq!(chat.node.program.ended().await, 137);
        chat.node.program.restart().await;
        chat.node.until_healthy().await;
    };
    chat.group.speak_while(killed).await;
    for member in &chat.group.members {
        member.until_told("reconnected", |_| true).await;
    }
    chat.group.speak(5).await;
    chat.group.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_participant_hears_what_it_missed() {
    let mut chat = chat().await;
    chat.group.members[0].program.pause().await;
    for number in 0..20 {
        chat.group.moderator().say(&format!("while one sleeps, {number}")).await;
    }
    chat.group.members[1].until_heard("while one sleeps, 19").await;
    assert_eq!(chat.group.moderator().account().outcomes().count(), 1, "somebody sleeps");
    chat.group.members[0].program.unpause().await;
    chat.group.end().await;
}

/// Neither it nor the node is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_unplugged_participant_hears_what_it_missed() {
    let mut chat = chat().await;
    chat.site.unplug(&chat.group.members[0].program, &chat.network).await;
    chat.group.speak(20).await;
    chat.group.members[1].until_heard("line 21 of agntcy/ns/moderator").await;
    let told = chat.group.members[0].account().outcomes().count();
    assert_eq!(told, 1, "nobody can have heard the rest of what it said");
    chat.site.plug(&chat.group.members[0].program, &chat.network).await;
    chat.group.end().await;
}
