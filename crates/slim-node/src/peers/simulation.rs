//! Many nodes, with links that come and go and carry one message at a time. What is
//! simulated is the network; tables, meshes and the router are the real ones.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use slim_proto::{
    AppPayload, BROADCAST, Body, Frame, Header, Message, Name, NameId, Publish, SessionId,
    SessionType, Subscription, UNICAST,
};

use super::{PeerKey, Peers, Topology};
use crate::RouteTable;
use crate::mesh::{Mesh, Side, Target};
use crate::router::{Routed, Subscriptions, route};

/// Announcements that wait on a link at most.
const ROOM: usize = 3;

/// One end of a link, or an application.
struct End {
    peer: Option<PeerKey>,
    queue: Mutex<VecDeque<Bytes>>,
}

impl End {
    fn new(peer: Option<PeerKey>) -> Self {
        Self { peer, queue: Mutex::default() }
    }

    fn push(&self, message: &Message) {
        self.queue.lock().unwrap().push_back(message.encode());
    }
}

impl Target for End {
    fn peer(&self) -> Option<PeerKey> {
        self.peer
    }

    fn is_usable(&self) -> bool {
        true
    }

    fn tell(&self, message: &Message) -> bool {
        let has_room = self.queue.lock().unwrap().len() < ROOM;
        if has_room {
            self.push(message);
        }
        has_room
    }

    fn wake(&self) {}
}

struct Node {
    table: Arc<RouteTable<End>>,
    mesh: Arc<Mesh<End>>,
    /// Each application has its own name, by number, and others.
    apps: BTreeMap<usize, Side<End>>,
    /// By neighbour.
    links: BTreeMap<usize, Side<End>>,
}

impl Node {
    fn new(topology: Topology, seed: usize) -> Self {
        let table = Arc::new(RouteTable::new());
        let peers = Peers::new(topology, 1000 * seed as u64, usize::MAX);
        let mesh = Arc::new(Mesh::new(topology, Arc::clone(&table), peers));
        Self { table, mesh, apps: BTreeMap::new(), links: BTreeMap::new() }
    }

    fn open(&mut self, neighbour: usize) {
        let (key, link) = self.mesh.up(|key| End::new(Some(key)));
        let mesh = Arc::clone(&self.mesh);
        self.links.insert(neighbour, Side::Peer { link, key, mesh });
        self.mesh.tell(key);
    }

    fn subscribe(&mut self, app: usize, name: &Name, is_up: bool) {
        let (table, mesh) = (&self.table, &self.mesh);
        let side = self.apps.entry(app).or_insert_with(|| Side::App {
            routes: table.attach(Arc::new(End::new(None)), usize::MAX),
            mesh: Some(Arc::clone(mesh)),
        });
        let header = Header::new(own_name(app), name.clone(), UNICAST);
        let subscription = Subscription { header, subscription_id: 7 };
        let message = match is_up {
            true => Message::Subscribe(subscription),
            false => Message::Unsubscribe(subscription),
        };
        let frame = Frame::parse(message.encode()).unwrap();
        // Withdrawing what is not there is answered with an error, and that is all.
        route(&frame, table, Some(mesh), side, &mut Vec::new()).unwrap();
    }
}

fn own_name(app: usize) -> Name {
    format!("org/ns/app-{app}").parse::<Name>().unwrap().with_id(NameId(app as u128))
}

fn group(number: usize) -> Name {
    "org/ns/group".parse::<Name>().unwrap().with_id(NameId(number as u128))
}

struct Net {
    topology: Topology,
    nodes: Vec<Node>,
    wires: BTreeSet<(usize, usize)>,
    /// Lives of nodes so far.
    lives: usize,
    /// What each application has subscribed to.
    wants: BTreeMap<(usize, usize), BTreeSet<usize>>,
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, usize),
    Cut(usize, usize),
    Restart(usize),
    Subscribe { node: usize, app: usize, group: usize },
    Unsubscribe { node: usize, app: usize, group: usize },
    Deliver(usize, usize),
    GiveUp(usize, usize),
}

impl Net {
    fn new(topology: Topology, size: usize) -> Self {
        let nodes = (0..size).map(|number| Node::new(topology, number)).collect();
        let (wires, wants) = Default::default();
        Self { topology, nodes, wires, lives: size, wants }
    }

    fn step(&mut self, step: &Step) {
        let size = self.nodes.len();
        match *step {
            Step::Join(a, b) if a % size != b % size => {
                let (a, b) = (a % size, b % size);
                if self.wires.insert((a.min(b), a.max(b))) {
                    self.nodes[a].open(b);
                    self.nodes[b].open(a);
                }
            }
            Step::Join(..) => {}
            Step::Cut(a, b) => self.cut(a % size, b % size),
            Step::Restart(node) => {
                let node = node % size;
                (0..size).for_each(|other| self.cut(node, other));
                self.lives += 1;
                self.nodes[node] = Node::new(self.topology, self.lives);
                self.wants.retain(|(at, _), _| *at != node);
            }
            Step::Subscribe { node, app, group } => self.subscribe(node % size, app, group, true),
            Step::Unsubscribe { node, app, group } => {
                self.subscribe(node % size, app, group, false)
            }
            Step::Deliver(from, to) => drop(self.deliver(from % size, to % size)),
            Step::GiveUp(node, to) => {
                let node = &self.nodes[node % size];
                if let Some(Side::Peer { key, mesh, .. }) = node.links.get(&(to % size)) {
                    mesh.give_up_waiting(*key);
                    mesh.remind(*key);
                }
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.wires.remove(&(a.min(b), a.max(b))) {
            self.nodes[a].links.remove(&b);
            self.nodes[b].links.remove(&a);
        }
    }

    fn subscribe(&mut self, node: usize, app: usize, number: usize, is_up: bool) {
        // Names of applications differ between nodes.
        let app = 10 * node + app;
        if !self.wants.contains_key(&(node, app)) {
            self.nodes[node].subscribe(app, &own_name(app), true);
        }
        let wants = self.wants.entry((node, app)).or_default();
        if is_up {
            wants.insert(number)
        } else {
            wants.remove(&number)
        };
        self.nodes[node].subscribe(app, &group(number), is_up);
    }

    /// The next message on a wire; false if there is none.
    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(Side::Peer { link, key, mesh }) = self.nodes[from].links.get(&to) else {
            return false;
        };
        let Some(message) = link.queue.lock().unwrap().pop_front() else {
            return mesh.tell(*key) || !link.queue.lock().unwrap().is_empty();
        };
        mesh.tell(*key);
        let Node { table, mesh, links, .. } = &mut self.nodes[to];
        let side = links.get_mut(&from).unwrap();
        let frame = Frame::parse(message).unwrap();
        match route(&frame, table, Some(mesh), side, &mut Vec::new()) {
            Ok(Routed::Answer(ack)) => side.link().push(&Message::SubscriptionAck(ack)),
            Ok(Routed::Done) => {}
            other => panic!("{other:?}"),
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let wires: Vec<_> = self.wires.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).collect();
            let moved = wires.into_iter().filter(|&(a, b)| self.deliver(a, b)).count();
            if moved == 0 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn neighbours(&self, node: usize) -> Vec<usize> {
        self.nodes[node].links.keys().copied().collect()
    }

    /// Links between one node and the others that can be reached.
    fn distances(&self, from: usize) -> BTreeMap<usize, usize> {
        let mut distances = BTreeMap::from([(from, 0)]);
        let mut next = VecDeque::from([from]);
        while let Some(node) = next.pop_front() {
            let distance = distances[&node] + 1;
            if self.topology == Topology::FullMesh && distance > 1 {
                break;
            }
            for neighbour in self.neighbours(node) {
                if let Entry::Vacant(new) = distances.entry(neighbour) {
                    new.insert(distance);
                    next.push_back(neighbour);
                }
            }
        }
        distances
    }

    /// Where somebody wants this.
    fn origins(&self, name: &Name) -> BTreeSet<usize> {
        let wants = |(&(node, app), groups): (&(usize, usize), &BTreeSet<usize>)| {
            let wanted = own_name(app) == *name || groups.iter().any(|g| group(*g) == *name);
            wanted.then_some(node)
        };
        self.wants.iter().filter_map(wants).collect()
    }

    /// The neighbours on a shortest way to a name.
    fn ways(&self, node: usize, name: &Name) -> BTreeSet<usize> {
        let origins = self.origins(name);
        let own = self.distances(node);
        let leads = |neighbour: &usize| {
            let theirs = self.distances(*neighbour);
            origins.iter().any(|origin| match (own.get(origin), theirs.get(origin)) {
                (Some(own), Some(theirs)) => theirs + 1 == *own,
                _ => false,
            })
        };
        self.neighbours(node).into_iter().filter(leads).collect()
    }

    /// Every name's route on every node is what the topology says.
    fn check_routes(&self) {
        let apps = self.wants.keys().map(|(_, app)| own_name(*app));
        let names: Vec<Name> = apps.chain((0..4).map(group)).collect();
        for (number, node) in self.nodes.iter().enumerate() {
            let mut routes = 0;
            for name in &names {
                let mut targets = Vec::new();
                node.table.all(&name.route(), &Arc::new(End::new(None)), &mut targets);
                routes += targets.len();
                let found: BTreeSet<usize> = (node.links.iter())
                    .filter(|(_, side)| targets.iter().any(|end| Arc::ptr_eq(end, side.link())))
                    .map(|(neighbour, _)| *neighbour)
                    .collect();
                assert_eq!(found, self.ways(number, name), "node {number}, {name}");
            }
            assert_eq!(node.table.subscriptions(), routes, "node {number} has no other");
        }
    }

    /// How many copies each application gets, and how many go over links.
    fn publish(&self, node: usize, app: usize, name: &Name, fanout: u32) -> (Vec<usize>, usize) {
        let message = Message::Publish(Publish {
            header: Header::new(own_name(app), name.clone(), fanout),
            session_type: SessionType::Multicast,
            session_id: SessionId(1),
            message_id: 1,
            body: Body::Msg(AppPayload::default()),
            metadata: BTreeMap::new(),
        });
        let (mut got, mut crossed) = (Vec::new(), 0);
        let mut travelling = vec![(node, None, message.encode())];
        while let Some((at, from, bytes)) = travelling.pop() {
            let node = &self.nodes[at];
            let link = match from {
                None => node.apps[&app].link(),
                Some(neighbour) => node.links[&neighbour].link(),
            };
            let frame = Frame::parse(bytes).unwrap();
            let mut targets = Vec::new();
            let mut side = Passing(Arc::clone(link));
            let routed = route(&frame, &node.table, Some(&node.mesh), &mut side, &mut targets);
            let Ok(Routed::Forward(_, outgoing)) = routed else { continue };
            let (head, tail) = outgoing.without_mac();
            for target in targets {
                let is_it = |side: &Side<End>| Arc::ptr_eq(side.link(), &target);
                if let Some((app, _)) = node.apps.iter().find(|(_, side)| is_it(side)) {
                    got.push(*app);
                } else {
                    let (to, _) = node.links.iter().find(|(_, side)| is_it(side)).unwrap();
                    crossed += 1;
                    travelling.push((*to, Some(at), [&head[..], &tail].concat().into()));
                }
            }
        }
        got.sort_unstable();
        (got, crossed)
    }

    /// Who publishes reaches everybody else once, or one of them.
    fn check_messages(&self) {
        for &(node, app) in self.wants.keys() {
            let reached = self.distances(node);
            for number in 0..4 {
                let wanted: Vec<usize> = (self.wants.iter())
                    .filter(|((at, _), groups)| {
                        reached.contains_key(at) && groups.contains(&number)
                    })
                    .map(|((_, other), _)| *other)
                    .filter(|other| *other != app)
                    .collect();
                let what = format!("from {app} at node {node} to group {number}");
                let (got, crossed) = self.publish(node, app, &group(number), BROADCAST);
                assert_eq!(got, wanted, "{what}");
                assert!(crossed < self.nodes.len(), "{what}: {crossed} copies over links");
                let (got, crossed) = self.publish(node, app, &group(number), UNICAST);
                assert_eq!(got.len(), wanted.len().min(1), "{what}, one: {got:?}");
                assert!(got.iter().all(|app| wanted.contains(app)), "{what}, one");
                assert!(crossed < self.nodes.len(), "{what}, one: {crossed} copies over links");
            }
        }
    }

    fn check(&mut self) {
        self.settle();
        self.check_routes();
        self.check_messages();
    }
}

/// A link of which nothing changes.
struct Passing(Arc<End>);

impl Subscriptions<End> for Passing {
    fn link(&self) -> &Arc<End> {
        &self.0
    }

    fn subscribe(&mut self, _: &slim_proto::RoutedFrame) -> Result<(), crate::SubscriptionError> {
        unreachable!("it only publishes")
    }

    fn unsubscribe(&mut self, _: &slim_proto::RoutedFrame) -> Result<(), crate::SubscriptionError> {
        unreachable!("it only publishes")
    }

    fn answered(&mut self, _: &Bytes) -> bool {
        unreachable!("it only publishes")
    }
}

fn net(topology: Topology, size: usize, wires: &[(usize, usize)]) -> Net {
    let mut net = Net::new(topology, size);
    for &(a, b) in wires {
        net.step(&Step::Join(a, b));
    }
    net
}

fn everybody(net: &mut Net) {
    for node in 0..net.nodes.len() {
        net.step(&Step::Subscribe { node, app: 1, group: 0 });
        net.step(&Step::Subscribe { node, app: 2, group: 0 });
    }
}

#[test]
fn a_line_a_ring_and_a_mesh_reach_everybody_once() {
    let ring = |size: usize| (0..size).map(|a| (a, (a + 1) % size)).collect::<Vec<_>>();
    let line = |size: usize| (1..size).map(|a| (a - 1, a)).collect::<Vec<_>>();
    let mesh = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
    for (topology, size, wires) in [
        (Topology::Relay, 3, line(3)),
        (Topology::Relay, 7, line(7)),
        (Topology::Relay, 3, ring(3)),
        (Topology::Relay, 4, ring(4)),
        (Topology::Relay, 7, ring(7)),
        (Topology::Relay, 4, mesh.to_vec()),
        (Topology::FullMesh, 4, mesh.to_vec()),
        (Topology::FullMesh, 3, ring(3)),
    ] {
        let mut net = net(topology, size, &wires);
        everybody(&mut net);
        net.check();
        let (got, crossed) = net.publish(0, 1, &group(0), BROADCAST);
        assert_eq!(got.len(), 2 * size - 1);
        assert_eq!(crossed, size - 1, "one copy for each other node: {topology:?} {wires:?}");
    }
}

#[test]
fn a_ring_goes_around_a_lost_link_and_back() {
    let mut net = net(Topology::Relay, 5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]);
    everybody(&mut net);
    net.check();
    for step in [Step::Cut(1, 2), Step::Restart(4), Step::Join(1, 2), Step::Join(4, 3)] {
        net.step(&step);
        net.check();
    }
}

#[test]
fn what_is_farther_than_an_announcement_goes_is_not_reached_and_not_half() {
    let wires: Vec<_> = (1..10).map(|a| (a - 1, a)).collect();
    let mut net = net(Topology::Relay, 10, &wires);
    net.step(&Step::Subscribe { node: 0, app: 1, group: 0 });
    net.step(&Step::Subscribe { node: 6, app: 1, group: 0 });
    net.step(&Step::Subscribe { node: 9, app: 1, group: 0 });
    net.settle();
    assert_eq!(net.publish(0, 1, &group(0), BROADCAST).0, [61], "six links");
    assert_eq!(net.publish(9, 91, &group(0), BROADCAST).0, [61]);
    net.step(&Step::Cut(0, 1));
    net.step(&Step::Cut(8, 9));
    net.settle();
    for node in 1..9 {
        let subscriptions = net.nodes[node].table.subscriptions();
        assert_eq!(subscriptions, 2, "node {node}: those of node 6");
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = 0..5usize;
    prop_oneof![
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Join(a, b)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => node.clone().prop_map(Step::Restart),
        3 => (node.clone(), 1..4usize, 0..4usize)
            .prop_map(|(node, app, group)| Step::Subscribe { node, app, group }),
        2 => (node.clone(), 1..4usize, 0..4usize)
            .prop_map(|(node, app, group)| Step::Unsubscribe { node, app, group }),
        8 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Deliver(a, b)),
        1 => (node.clone(), node).prop_map(|(a, b)| Step::GiveUp(a, b)),
    ]
}

proptest! {
    /// Whatever happened before: once nothing moves, there is no ghost, no loop and no
    /// lost route, and each message reaches each application once.
    #[test]
    fn after_quiet_all_is_as_the_topology_says(
        is_relay in any::<bool>(),
        size in 2..6usize,
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        let topology = if is_relay { Topology::Relay } else { Topology::FullMesh };
        let mut net = Net::new(topology, size);
        for step in &steps {
            net.step(step);
        }
        net.check();
    }
}
