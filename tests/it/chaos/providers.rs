//! The identity providers, one of each kind that rotates: they live on, and log what they saw.

use std::time::Duration;

use token_supervisor::testing::{Chaos, Fault, Kind, Profile, SimulatedIdp};

use crate::dice::Dice;

/// Far longer than any sender is away, and short enough that the program's settings fit into it only with their own margin.
pub(super) const GRACE: Duration = Duration::from_secs(60);

const KINDS: [(&str, Kind); 4] = [
    ("strict", Kind::Strict),
    ("reject", Kind::Reject),
    ("same-pair", Kind::SamePair { grace: GRACE }),
    ("last-wins", Kind::LastWins { grace: GRACE }),
];

pub(super) struct Provider {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) sim: SimulatedIdp,
}

pub(super) struct Providers(pub(super) Vec<Provider>);

impl Providers {
    pub(super) fn start() -> Self {
        Self(KINDS.map(|(name, kind)| Provider::start(name, kind, life(kind))).into())
    }

    /// Refreshes take time from now on, so that something is in flight whenever something goes wrong.
    pub(super) fn slow_down(&self, dice: &mut Dice) {
        for provider in &self.0 {
            let chaos = Chaos::new(dice.next()).with(Fault::Delay(Duration::from_millis(1_500)), 500);
            provider.sim.chaos(chaos.with(Fault::SlowBody(Duration::from_millis(800)), 200));
        }
    }

    /// How many requests of this replica the providers have not answered.
    pub(super) fn in_flight_of(&self, replica: usize) -> usize {
        // Requests are answered within seconds: older ones need not be looked at.
        const LATEST: u64 = 200;
        let of = |sim: &SimulatedIdp| sim.presentations_after(sim.requests().saturating_sub(LATEST) as usize);
        let all = self.0.iter().flat_map(|provider| of(&provider.sim));
        let is_of = |query: &str| sender(query).is_some_and(|(sender, _)| sender == replica);
        all.filter(|one| one.answered_at.is_none() && one.query.as_deref().is_some_and(is_of)).count()
    }

    pub(super) fn speed_up(&self) {
        self.0.iter().for_each(|provider| provider.sim.forget_faults());
    }
}

impl Provider {
    pub(super) fn start(name: &'static str, kind: Kind, life: Duration) -> Self {
        Self { name, kind, sim: SimulatedIdp::start(Profile::oauth2(kind).access_lifetime(life)).unwrap() }
    }

    /// The provider's section in the configuration of the replicas.
    pub(super) fn config(&self) -> String {
        let profile = self.sim.profile();
        format!(
            "[idp.{}]\npreset = \"oauth2\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\n\
             rotation = \"always\"\nreuse_grace_seconds = {}\nmax_concurrency = 64\n",
            self.name,
            profile.client_id,
            profile.client_secret.expose_secret(),
            self.kind.grace().unwrap_or_default().as_secs(),
        )
    }
}

/// The query of all requests of a process.
pub(super) fn query(replica: usize, life: usize) -> String {
    format!("replica={replica}&life={life}")
}

/// The process that sent a request with this query: the replica and the number of its life.
pub(super) fn sender(query: &str) -> Option<(usize, usize)> {
    let (replica, life) = query.strip_prefix("replica=")?.split_once("&life=")?;
    Some((replica.parse().ok()?, life.parse().ok()?))
}

/// A quarter of a token's life and two leases are left when its refresh begins: where there is no grace, that is longer than
/// most absences of a sender, after which a doubt is given up.
fn life(kind: Kind) -> Duration {
    Duration::from_secs(if kind.grace().is_some() { 12 } else { 24 })
}
