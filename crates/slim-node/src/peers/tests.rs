use super::*;

fn name(text: &str) -> Name {
    text.parse::<Name>().unwrap().with_id(NameId(1))
}

fn peers(topology: Topology) -> Peers {
    Peers::new(topology, 100, 10)
}

/// What a peer is told: the name, the id, and the hops unless it is withdrawn.
fn told(peers: &mut Peers, to: PeerKey) -> Vec<(String, u64, Option<u32>)> {
    let mut told = Vec::new();
    peers.tell(to, |message| {
        let (subscription, is_up) = match message {
            Message::Subscribe(subscription) => (subscription, true),
            Message::Unsubscribe(subscription) => (subscription, false),
            other => panic!("{other:?}"),
        };
        let Header { source, destination, ttl, .. } = &subscription.header;
        assert_eq!(source, destination);
        let hops = is_up.then_some(*ttl);
        told.push((destination.readable(), subscription.subscription_id, hops));
        true
    });
    told
}

fn announce(peers: &mut Peers, from: PeerKey, text: &str, id: u64, hops: u32) {
    let name = name(text);
    peers.announced(from, name.route(), Some(name), id, hops).unwrap();
}

fn bob(id: u64, hops: Option<u32>) -> (String, u64, Option<u32>) {
    ("org/ns/bob".to_owned(), id, hops)
}

#[test]
fn the_first_link_of_a_name_announces_it_and_the_last_withdraws_it() {
    for (topology, hops) in [(Topology::FullMesh, 2), (Topology::Relay, 7)] {
        let mut peers = peers(topology);
        let peer = peers.up();
        let bobs = name("org/ns/bob");
        peers.subscribed(bobs.route(), Some(bobs.clone()));
        assert_eq!(told(&mut peers, peer), [bob(101, Some(hops))]);
        peers.subscribed(bobs.route(), Some(bobs.clone()));
        peers.unsubscribed(bobs.route());
        assert_eq!(told(&mut peers, peer), [], "one is left");
        peers.unsubscribed(bobs.route());
        assert_eq!(told(&mut peers, peer), [bob(101, None)]);
        peers.subscribed(bobs.route(), Some(bobs.clone()));
        assert_eq!(told(&mut peers, peer), [bob(102, Some(hops))], "another id");
        peers.unsubscribed(bobs.route());
        peers.subscribed(bobs.route(), Some(bobs));
        let told = told(&mut peers, peer);
        assert_eq!(told, [bob(102, None), bob(103, Some(hops))]);
    }
}

#[test]
fn a_late_peer_is_told_everything_that_is_still_so() {
    let mut peers = peers(Topology::Relay);
    let first = peers.up();
    let (bobs, eves) = (name("org/ns/bob"), name("org/ns/eve"));
    peers.subscribed(bobs.route(), Some(bobs));
    peers.subscribed(eves.route(), Some(eves.clone()));
    announce(&mut peers, first, "org/ns/carol", 7, 5);
    peers.unsubscribed(eves.route());
    let late = peers.up();
    let mut told = told(&mut peers, late);
    told.sort();
    assert_eq!(told, [bob(101, Some(7)), ("org/ns/carol".to_owned(), 7, Some(5))]);
}

#[test]
fn a_name_without_its_readable_parts_is_not_announced_until_they_are_known() {
    let mut peers = peers(Topology::FullMesh);
    let peer = peers.up();
    let bobs = name("org/ns/bob");
    peers.subscribed(bobs.route(), None);
    assert_eq!(told(&mut peers, peer), []);
    peers.subscribed(bobs.route(), Some(bobs));
    assert_eq!(told(&mut peers, peer), [bob(101, Some(2))]);
}

#[test]
fn what_a_peer_says_is_passed_on_where_nodes_relay_but_not_back() {
    let mut peers = peers(Topology::Relay);
    let (a, b, c) = (peers.up(), peers.up(), peers.up());
    announce(&mut peers, a, "org/ns/bob", 7, 3);
    assert_eq!(told(&mut peers, a), []);
    assert_eq!(told(&mut peers, b), [bob(7, Some(3))]);
    assert_eq!(told(&mut peers, c), [bob(7, Some(3))]);
    announce(&mut peers, b, "org/ns/bob", 7, 2);
    assert_eq!(told(&mut peers, c), [], "not nearer");
    announce(&mut peers, b, "org/ns/bob", 7, 5);
    assert_eq!(told(&mut peers, a), [bob(7, Some(5))]);
    assert_eq!(told(&mut peers, b), [bob(7, None)], "who is nearest is not told");
    assert_eq!(told(&mut peers, c), [bob(7, Some(5))]);
    assert!(!peers.down(b, usize::MAX));
    assert_eq!(told(&mut peers, a), [bob(7, None)]);
    assert_eq!(told(&mut peers, c), [bob(7, Some(3))], "the long way");
    announce(&mut peers, a, "org/ns/bob", 7, 1);
    assert_eq!(told(&mut peers, c), [bob(7, None)], "the last hop");
}

#[test]
fn in_a_full_mesh_nothing_is_passed_on() {
    let mut peers = peers(Topology::FullMesh);
    let (a, b) = (peers.up(), peers.up());
    announce(&mut peers, a, "org/ns/bob", 7, 7);
    assert_eq!(told(&mut peers, b), []);
    let is_way = RouteChange { peer: a, name: name("org/ns/bob").route(), is_up: true };
    assert_eq!(peers.take_changes(), [is_way]);
}

#[test]
fn an_own_announcement_that_comes_back_is_nobodys() {
    let mut peers = peers(Topology::Relay);
    let peer = peers.up();
    let bobs = name("org/ns/bob");
    peers.subscribed(bobs.route(), Some(bobs));
    announce(&mut peers, peer, "org/ns/bob", 101, 6);
    assert_eq!((peers.heard(), peers.take_changes()), (0, vec![]));
    // The same id for another name, which clients may well choose, is another thing.
    announce(&mut peers, peer, "org/ns/eve", 101, 6);
    assert_eq!((peers.heard(), peers.take_changes().len()), (1, 1));
}

#[test]
fn a_withdrawal_under_an_unknown_id_means_what_the_peer_itself_has() {
    let mut peers = peers(Topology::Relay);
    let peer = peers.up();
    let route = name("org/ns/bob").route();
    announce(&mut peers, peer, "org/ns/bob", 7, 7);
    announce(&mut peers, peer, "org/ns/bob", 8, 4);
    peers.withdrawn(peer, route, 99);
    assert_eq!(peers.heard(), 1, "what it has from others stays");
    let is_way = RouteChange { peer, name: route, is_up: true };
    assert_eq!(peers.take_changes(), [is_way], "and so does the route");
    peers.withdrawn(peer, route, 8);
    let is_none = RouteChange { is_up: false, ..is_way };
    assert_eq!(peers.take_changes(), [is_none]);
    peers.withdrawn(peer, route, 8);
    assert_eq!((peers.heard(), peers.take_changes()), (0, vec![]), "twice is once");
}

#[test]
fn a_peer_has_a_limit() {
    let mut peers = peers(Topology::FullMesh);
    let peer = peers.up();
    for id in 1..=10 {
        announce(&mut peers, peer, "org/ns/bob", id, 1);
    }
    let eves = name("org/ns/eve");
    let refused = peers.announced(peer, eves.route(), Some(eves), 11, 1);
    assert_eq!(refused, Err(SubscriptionError::TooMany(10)));
    announce(&mut peers, peer, "org/ns/bob", 3, 1);
}

#[test]
fn a_peer_that_never_answers_is_told_all_in_the_end_and_reminded() {
    let mut peers = Peers::new(Topology::FullMesh, 0, 10);
    let peer = peers.up();
    let names: Vec<Name> = (0..300).map(|n| name(&format!("org/ns/app-{n}"))).collect();
    for name in &names {
        peers.subscribed(name.route(), Some(name.clone()));
    }
    let mut rounds = Vec::new();
    loop {
        let told = told(&mut peers, peer).len();
        if told == 0 {
            break;
        }
        rounds.push(told);
        assert_eq!(peers.give_up_waiting(peer), told);
    }
    assert_eq!(rounds, [MAX_UNANSWERED, MAX_UNANSWERED, 300 - 2 * MAX_UNANSWERED]);
    peers.remind(peer);
    assert_eq!(told(&mut peers, peer).len(), MAX_UNANSWERED, "again");
}

#[test]
fn what_is_answered_is_not_told_again_and_what_is_refused_is() {
    let mut peers = peers(Topology::FullMesh);
    let peer = peers.up();
    let (bobs, eves) = (name("org/ns/bob"), name("org/ns/eve"));
    peers.subscribed(bobs.route(), Some(bobs));
    peers.subscribed(eves.route(), Some(eves.clone()));
    assert_eq!(told(&mut peers, peer).len(), 2);
    peers.answered(peer, 101, false);
    peers.answered(peer, 102, true);
    peers.answered(peer, 103, true);
    assert_eq!(peers.give_up_waiting(peer), 0);
    peers.remind(peer);
    assert_eq!(told(&mut peers, peer), [bob(101, Some(2))]);
    peers.answered(peer, 101, false);
    peers.unsubscribed(name("org/ns/bob").route());
    peers.remind(peer);
    assert_eq!(told(&mut peers, peer), [bob(101, None)], "whatever it has made of it");
}

#[test]
fn what_there_is_no_room_for_is_told_later() {
    let mut peers = peers(Topology::FullMesh);
    let peer = peers.up();
    let bobs = name("org/ns/bob");
    peers.subscribed(bobs.route(), Some(bobs));
    assert!(peers.tell(peer, |_| false));
    assert!(peers.has_news(peer));
    assert_eq!(told(&mut peers, peer), [bob(101, Some(2))]);
    assert!(!peers.has_news(peer));
}

#[test]
fn the_nearest_is_not_where_it_came_from() {
    let mut peers = peers(Topology::Relay);
    let (a, b, c) = (peers.up(), peers.up(), peers.up());
    announce(&mut peers, a, "org/ns/bob", 7, 6);
    announce(&mut peers, b, "org/ns/bob", 8, 7);
    announce(&mut peers, c, "org/ns/bob", 8, 3);
    let any = RouteName { id: NameId::ANY, ..name("org/ns/bob").route() };
    for route in [name("org/ns/bob").route(), any] {
        assert_eq!(peers.nearest(c, &route), Some(b));
        assert_eq!(peers.nearest(b, &route), Some(a));
    }
    assert_eq!(peers.nearest(c, &name("org/ns/eve").route()), None);
}
