//! What a seed draws before anything happens.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use slim_session::{SessionConfig, Timers};

/// The kind of world.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Readable names.
    pub(super) slots: usize,
    pub(super) config: SessionConfig,
    pub(super) is_p2p: bool,
    pub(super) network: Network,
    /// Rounds of faults, each followed by a calm.
    pub(super) rounds: u32,
    /// How long a round lasts.
    pub(super) round: Duration,
    /// Things done in a round.
    pub(super) actions: u32,
    /// Chance that with an action somebody goes away from a group, or comes back.
    pub(super) away: f64,
    /// Whether an hour passes between the faults and the end, so that tokens expire.
    pub(super) sleeps: bool,
    /// How likely each kind of action is, relative to the others.
    pub(super) weights: [u32; Action::ALL.len()],
}

/// How bad the network is in a round.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// Between a client and the node, at least and at most.
    pub(super) latency: (Duration, Duration),
    /// Chance that a publish is lost on one way.
    pub(super) loss: f64,
    /// Chance that a frame comes twice.
    pub(super) duplication: f64,
    /// Chance that a frame is overtaken by later ones of its link, which a real
    /// link rules out.
    pub(super) reordering: f64,
    /// What passes on one way between a client and the node, in bytes a second.
    pub(super) bandwidth: Option<u32>,
}

impl Network {
    /// Nothing is lost, copied, reordered or held up.
    pub(super) fn calm(&self) -> Self {
        Self { loss: 0.0, duplication: 0.0, reordering: 0.0, bandwidth: None, ..self.clone() }
    }
}

/// What can happen at a random time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Publish,
    Burst,
    PublishTo,
    Invite,
    Remove,
    Leave,
    CloseGroup,
    Create,
    State,
    Flush,
    Busy,
    Kill,
    KillModerator,
    Restart,
    Pause,
    LinkLoss,
    LinkGone,
    NodeRestart,
    Cut,
    Slow,
}

impl Action {
    /// All, each with its usual weight and whether a world may be without it.
    pub(super) const ALL: [(Self, u32, bool); 20] = [
        (Self::Publish, 40, false),
        (Self::Burst, 2, true),
        (Self::PublishTo, 5, true),
        (Self::Invite, 10, false),
        (Self::Remove, 3, true),
        (Self::Leave, 2, true),
        (Self::CloseGroup, 1, true),
        (Self::Create, 1, true),
        (Self::State, 2, true),
        (Self::Flush, 2, true),
        (Self::Busy, 2, true),
        (Self::Kill, 2, true),
        (Self::KillModerator, 1, true),
        (Self::Restart, 3, true),
        (Self::Pause, 3, true),
        (Self::LinkLoss, 3, true),
        (Self::LinkGone, 1, true),
        (Self::NodeRestart, 1, true),
        (Self::Cut, 3, true),
        (Self::Slow, 3, true),
    ];
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        // Another stream than the world's.
        let mut rng = StdRng::seed_from_u64(seed ^ 0x706c_616e);
        // For what was thought of later: worlds without it stay what they were.
        let mut apart = StdRng::seed_from_u64(seed ^ 0x6c61_7465);
        let is_p2p = rng.random_bool(0.2);
        let timers = Timers {
            timeout: Duration::from_millis(pick(&mut rng, &[100, 300, 1000])),
            max_retries: pick(&mut rng, &[3, 5, 10]),
        };
        let config = SessionConfig {
            timers: rng.random_bool(0.85).then_some(timers),
            mls: rng.random_bool(0.6),
            metadata: BTreeMap::new(),
        };
        let least = rng.random_range(0..20);
        let most = least + rng.random_range(1..80);
        let network = Network {
            latency: (Duration::from_millis(least), Duration::from_millis(most)),
            loss: pick(&mut rng, &[0.0, 0.0, 0.01, 0.05, 0.2]),
            duplication: pick(&mut rng, &[0.0, 0.0, 0.02, 0.1]),
            reordering: pick(&mut rng, &[0.0, 0.0, 0.0, 0.05]),
            bandwidth: None,
        };
        let away = if is_p2p { 0.0 } else { pick(&mut apart, &[0.0, 0.0, 0.1, 0.3]) };
        let bandwidth = pick(&mut apart, &[None, None, None, Some(100_000)]);
        let network = Network { bandwidth, ..network };
        // Worlds that lack something show more than worlds that have a bit of all.
        let weights = Action::ALL.map(|(_, weight, may_lack)| match rng.random_range(0..4) {
            0 | 1 if may_lack => 0,
            3 => weight * 3,
            _ => weight,
        });
        let slots = rng.random_range(2..=if is_p2p { 4 } else { 8 });
        Self {
            slots,
            config,
            is_p2p,
            network,
            rounds: rng.random_range(1..=2),
            round: Duration::from_secs(rng.random_range(5..60)),
            actions: rng.random_range(10..80),
            away,
            weights,
            sleeps: slots <= 3 && rng.random_bool(0.2),
        }
    }

    /// Whether a session goes on as if nothing had happened when messages overtake
    /// each other on one link. Without MLS nothing tells an old change of the group
    /// from a new one, nor an old message from the first to a member that is back.
    pub(super) fn is_ordered(&self) -> bool {
        self.config.mls || self.network.reordering == 0.0
    }
}

/// One of these.
pub(super) fn pick<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}
