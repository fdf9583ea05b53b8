//! Nodes that are joined, of both implementations.

use std::fs;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Stage, ports};
use crate::node::Node;
use crate::stage::cast::{Ours, Side};

/// How three nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Each with each other.
    FullMesh,
    /// Each with its neighbours, which pass on what is said.
    Line,
}

/// Their ids. Of two nodes, the one with the smaller id dials.
const IDS: [&str; 3] = ["node-1", "node-2", "node-3"];

impl Stage<'_> {
    /// Puts three nodes in the place of the one, ours and in the middle the cast's. Who
    /// starts from now on is at the first, the second, the third, the first, and so on.
    pub(crate) fn join_nodes(&mut self, joined: Joined) -> anyhow::Result<()> {
        self.stop_node()?;
        let sides = [Ours, self.cast.node, Ours];
        let mut addresses = Vec::new();
        for _ in IDS {
            addresses.push(format!("127.0.0.1:{}", ports::free()?));
        }
        let mut nodes = Vec::new();
        // The one in the middle last: theirs does not listen before it has reached those
        // whom it dials.
        for number in [2, 0, 1] {
            let path = self.folder.join(format!("{}.yaml", IDS[number]));
            let config = config(joined, number, sides[number], &addresses);
            // JSON is YAML.
            fs::write(&path, config.to_string()).context("writing a node's file")?;
            let log = self.log(IDS[number])?;
            let mut command = self.tools.node(sides[number], &addresses[number], Some(&path));
            nodes.push((number, Node::start(&mut command, Some(log))?));
            self.note(IDS[number], "listens")?;
        }
        nodes.sort_by_key(|(number, _)| *number);
        self.mesh = nodes.into_iter().map(|(_, node)| node).collect();
        Ok(())
    }

    /// Where the next member of a mesh is.
    pub(super) fn next_of_mesh(&self) -> Option<String> {
        let node = self.mesh.get(self.records.len() % self.mesh.len().max(1))?;
        // Of theirs it is the address alone.
        Some(node.address().to_owned())
    }
}

fn config(joined: Joined, number: usize, side: Side, addresses: &[String]) -> Value {
    let peer = |other: usize| {
        json!({
            "node_id": IDS[other],
            "endpoint": format!("http://{}", addresses[other]),
            "tls": { "insecure": true },
        })
    };
    let servers = json!([{ "endpoint": addresses[number], "tls": { "insecure": true } }]);
    let static_peers = |topology: &str, peers: Vec<Value>| json!({ "topology": topology, "discovery": { "type": "static", "peers": peers } });
    let mut service = json!({ "node_id": IDS[number], "dataplane": { "servers": servers } });
    match (joined, number) {
        (Joined::FullMesh, _) => {
            let all = (0..IDS.len()).map(peer).collect();
            service["peers"] = static_peers("full_mesh", all);
        }
        // The middle dials both, who know who may come.
        (Joined::Line, 1) => {
            let clients = [0, 2].map(|other| {
                let mut client = peer(other);
                client["connection_type"] = json!("peer");
                if side != Ours {
                    client.as_object_mut().expect("it is one").remove("node_id");
                }
                client
            });
            service["dataplane"]["clients"] = json!(clients);
        }
        (Joined::Line, _) => {
            service["peers"] = static_peers("relay", vec![json!({ "node_id": IDS[1] })]);
        }
    }
    json!({ "services": { "slim/0": service } })
}
