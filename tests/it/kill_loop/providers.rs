//! The identity providers: they live on while the process dies, hold requests so that kills hit them, and log
//! what they did.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use token_supervisor::testing::{Chaos, Fault, Kind, Presentation, Profile, SimulatedIdp};

use super::{LIMIT, until};
use crate::dice::Dice;

pub(super) const GRANTS_AT_EACH: usize = 15;

/// How long access tokens live: longer than requests are held, so that what comes late is still good; and what is
/// refused right after its issue is replaced after a quarter of it.
pub(super) const LIFE: Duration = Duration::from_secs(6);

/// Far longer than the loop takes to come back to a grant.
const GRACE: Duration = Duration::from_secs(6 * 3_600);

const KINDS: [(&str, Kind); 5] = [
    ("strict", Kind::Strict),
    ("reject", Kind::Reject),
    ("same-pair", Kind::SamePair { grace: GRACE }),
    ("last-wins", Kind::LastWins { grace: GRACE }),
    ("not-rotating", Kind::NotRotating),
];

pub(super) struct Providers {
    pub(super) all: Vec<(&'static str, SimulatedIdp)>,
    /// How many presentations each had logged before this life.
    known: Vec<usize>,
}

impl Providers {
    pub(super) fn start() -> Self {
        let start = |kind| SimulatedIdp::start(Profile::oauth2(kind).access_lifetime(LIFE)).unwrap();
        Self { all: KINDS.map(|(name, kind)| (name, start(kind))).into(), known: vec![0; KINDS.len()] }
    }

    /// The providers of all grants, in the order of the grants.
    pub(super) fn of_grants() -> impl Iterator<Item = (&'static str, Kind)> {
        KINDS.into_iter().flat_map(|kind| std::iter::repeat_n(kind, GRANTS_AT_EACH))
    }

    pub(super) fn of(&self, grant: usize) -> &SimulatedIdp {
        &self.all[grant / GRANTS_AT_EACH].1
    }

    /// From now on about one request in three is answered; the others hang or are answered piece by piece.
    pub(super) fn hold_requests(&self, dice: &mut Dice) {
        for (_, sim) in &self.all {
            let chaos = Chaos::new(dice.next()).with(Fault::Hang, 250).with(Fault::HangAfter, 250);
            sim.chaos(chaos.with(Fault::SlowBody(Duration::from_millis(200)), 200));
        }
    }

    pub(super) fn hold_no_more(&self) {
        self.all.iter().for_each(|(_, sim)| sim.forget_faults());
        self.answer_everything();
    }

    /// Lets go all that hangs.
    pub(super) fn answer_everything(&self) {
        self.all.iter().for_each(|(_, sim)| sim.release());
    }

    /// Requests of this life that were received and are not answered.
    pub(super) fn in_flight(&self) -> Vec<usize> {
        let of_this_life = self.all.iter().zip(&self.known).map(|((_, sim), known)| sim.presentations_after(*known));
        of_this_life.map(|all| all.iter().filter(|one| one.answered_at.is_none()).count()).collect()
    }

    /// The process is dead: takes in what it had written, and says how many presentations each has logged.
    pub(super) fn end_of_life(&self) -> Vec<usize> {
        // What was written lies in the buffers of connections that were made before these.
        for _ in 0..2 {
            self.all.iter().for_each(|(_, sim)| ask(sim));
        }
        let counts = self.all.iter().zip(&self.known);
        counts.map(|((_, sim), known)| known + sim.presentations_after(*known).len()).collect()
    }

    /// Ends what hangs of the life that ended with so many presentations: where the dice say so it is processed
    /// now (`late` counts it), elsewhere never. All presentations of that life.
    pub(super) fn settle(&mut self, ends: Vec<usize>, dice: Option<&mut Dice>, late: &mut usize) -> Vec<Presentation> {
        let mut dice = dice;
        let mut presentations = Vec::new();
        for ((_, sim), (known, end)) in self.all.iter().zip(self.known.iter_mut().zip(ends)) {
            let of_that_life = || sim.presentations_after(*known).into_iter().take(end - *known).collect::<Vec<_>>();
            let hanging = || of_that_life().iter().filter(|one| one.processed_at.is_none()).count();
            if dice.as_mut().is_some_and(|dice| dice.up_to(2) == 0) {
                *late += hanging();
                sim.release_first(end);
                until("what hangs is processed", || hanging() == 0);
            } else {
                sim.abandon_first(end);
            }
            presentations.extend(of_that_life());
            *known = end;
        }
        presentations
    }
}

/// One round trip, on a connection of its own.
fn ask(sim: &SimulatedIdp) {
    let url = sim.userinfo_url();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}
