//! A surge of refusals. Pure.
//!
//! Providers have refused every refresh token while they restarted (keycloak/keycloak#44821). When an unusual share of
//! the last results are refusals, nothing more is sent but a canary from time to time, until one succeeds or people
//! release the provider. A token that was refused is not lost by being sent again, so those that were refused since the
//! surge began are tried once more when it is over.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::{
    backoff::OPERATOR_BACKOFF,
    breaker::{Breaker, GateClosed, WHILE_PROBING},
};
use crate::{
    clock::Reading,
    error::Cause,
    model::{BootTime, WallTime},
};

/// Results older than this do not count.
const WINDOW: Duration = Duration::from_secs(300);
/// The number of last results that count.
const RESULTS: usize = 20;
/// So many refusals in a row are a surge.
const IN_A_ROW: usize = 5;
/// So many refusals among the last results are one, too.
const SHARE: usize = 10;
/// A canary that is not sent by the grants whose turn it is may be sent by any grant after this time.
const ANYBODY: Duration = Duration::from_secs(120);
/// More grants are not remembered.
const MOST_REFUSED: usize = 1_024;

/// What the refusals of one provider say.
#[derive(Clone, Debug)]
pub(super) struct Surge {
    results: VecDeque<RefreshResult>,
    pause: Breaker,
    /// When the surge that lasts began.
    began: Option<WallTime>,
    /// When the surge began that is over, and whose refused grants were not tried again yet.
    over: Option<WallTime>,
    /// The grants that were refused in this surge.
    refused: HashSet<u64>,
    /// The grants that were refused in an earlier surge, and have not got tokens since: another refusal is no news.
    known: HashSet<u64>,
    /// Whether the next canary may be a grant that was not refused: the last one was refused once more.
    others_turn: bool,
}

#[derive(Clone, Copy, Debug)]
struct RefreshResult {
    at: Reading,
    grant: u64,
    refused: bool,
}

/// A surge that lasts, for whoever sends canaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SurgeSight {
    pub(crate) began: WallTime,
    /// Whether a grant that was refused may be tried now.
    pub(crate) canary: bool,
}

impl Surge {
    pub(super) fn new() -> Self {
        let (results, refused, known) = (VecDeque::new(), HashSet::new(), HashSet::new());
        let pause = Breaker::new(OPERATOR_BACKOFF);
        Self { results, pause, began: None, over: None, refused, known, others_turn: false }
    }

    /// Returns why this grant, or one of which nothing is known, may not send a request now.
    pub(super) fn closed_to(&self, grant: Option<u64>, now: BootTime) -> Option<GateClosed> {
        let its_turn = self.others_turn || grant.is_some_and(|grant| self.refused.contains(&grant));
        let waits_for_others = self.pause.is_open() && !its_turn && self.pause.overdue(now) < ANYBODY;
        let wait = self.pause.closed(now).or(waits_for_others.then_some(WHILE_PROBING * 5))?;
        Some(GateClosed { wait, cause: Cause::RefusalSurge })
    }

    /// Lets a request pass. Returns whether it is the canary.
    pub(super) fn probe(&mut self) -> bool {
        self.pause.probe()
    }

    pub(super) fn give_back(&mut self, canary: bool) {
        self.pause.give_back(canary);
    }

    /// Forgets a canary whose response goes elsewhere.
    pub(super) fn forget_canary(&mut self) {
        self.pause.give_back(true);
    }

    pub(super) fn probe_now(&mut self, now: BootTime) {
        self.pause.probe_now(now);
    }

    /// Records that the provider refused the refresh token of this grant. Returns the wait if this is a surge from now on.
    pub(super) fn refuses(&mut self, grant: u64, canary: bool, now: Reading, random: u64) -> Option<Duration> {
        if self.pause.is_open() {
            self.others_turn = canary && self.refused.contains(&grant);
            self.remember(grant);
            return self.pause.fail(canary, now.boot, random);
        }
        if self.known.contains(&grant) {
            return None;
        }
        self.record(RefreshResult { at: now, grant, refused: true });
        let refused = self.results.iter().filter(|result| result.refused);
        let in_a_row = self.results.iter().rev().take_while(|result| result.refused).count();
        if in_a_row < IN_A_ROW && refused.clone().count() < SHARE {
            return None;
        }
        self.began = refused.clone().map(|result| result.at.wall).min();
        self.refused = refused.map(|result| result.grant).collect();
        self.results.clear();
        self.others_turn = false;
        self.pause.fail(canary, now.boot, random)
    }

    /// Records that a grant got its tokens. Returns whether that ends a surge.
    pub(super) fn renews(&mut self, grant: u64, now: Reading) -> bool {
        self.known.remove(&grant);
        self.refused.remove(&grant);
        self.record(RefreshResult { at: now, grant, refused: false });
        self.end()
    }

    /// Ends the surge. Returns whether there was one.
    pub(super) fn end(&mut self) -> bool {
        self.over = self.began.take().or(self.over);
        let room = MOST_REFUSED.saturating_sub(self.known.len());
        self.known.extend(self.refused.drain().take(room));
        self.pause.succeed()
    }

    pub(super) fn sight(&self, now: BootTime) -> Option<SurgeSight> {
        let turn = !self.others_turn || self.pause.overdue(now) >= ANYBODY;
        let canary = self.pause.closed(now).is_none() && turn;
        self.began.map(|began| SurgeSight { began, canary })
    }

    /// Takes the time since which refused grants are to be tried once more.
    pub(super) fn take_over(&mut self) -> Option<WallTime> {
        self.over.take()
    }

    fn remember(&mut self, grant: u64) {
        if self.refused.len() < MOST_REFUSED {
            self.refused.insert(grant);
        }
    }

    fn record(&mut self, result: RefreshResult) {
        self.results.retain(|known| known.grant != result.grant && result.at.boot.since(known.at.boot) < WINDOW);
        self.results.push_back(result);
        if self.results.len() > RESULTS {
            self.results.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_000_000;

    fn at(seconds: i64) -> Reading {
        Reading { wall: WallTime(T + seconds * 1_000), boot: BootTime(T + seconds * 1_000) }
    }

    #[test]
    fn refusals_in_a_row_or_half_of_the_last_results_are_a_surge() {
        // `r` a refusal, `o` a success, each of another grant a second later; `.` a minute.
        for (results, surge_at) in [
            ("rrrr", None),
            ("rrrrr", Some(4)),
            ("rrrrorrrr", None),
            ("ooooooooooooooooooooooorrrrr", Some(27)),
            ("rororororororororor", Some(18)),
            ("roorooroorooroorooroorooroo", None),
            ("rr.rr......r", None),
        ] {
            let (mut surge, mut now, mut found) = (Surge::new(), 0, None);
            for (number, result) in results.chars().enumerate() {
                now += if result == '.' { 60 } else { 1 };
                let grant = number as u64;
                match result {
                    'r' if surge.refuses(grant, false, at(now), 0).is_some() => found = found.or(Some(number)),
                    'o' => {
                        surge.renews(grant, at(now));
                    }
                    _ => {}
                }
            }
            assert_eq!(found, surge_at, "{results}");
        }
    }

    #[test]
    fn one_grant_that_is_refused_again_and_again_is_no_surge() {
        let mut surge = Surge::new();
        assert!((0..100).all(|second| surge.refuses(7, false, at(second), 0).is_none()));
    }

    fn surging() -> Surge {
        let mut surge = Surge::new();
        for grant in 0..5 {
            surge.refuses(grant, false, at(grant as i64), 0);
        }
        surge
    }

    #[test]
    fn canaries_are_grants_that_were_refused_and_others_in_turn() {
        let mut surge = surging();
        assert_eq!(surge.sight(at(5).boot), Some(SurgeSight { began: at(0).wall, canary: false }));
        assert!(surge.closed_to(Some(0), at(5).boot).is_some());
        let later = at(40);
        assert!(surge.closed_to(None, later.boot).is_some() && surge.sight(later.boot).unwrap().canary);
        assert!(surge.closed_to(Some(0), later.boot).is_none() && surge.closed_to(Some(99), later.boot).is_some());
        assert!(surge.probe() && !surge.probe());
        surge.refuses(0, true, later, 0);
        // Perhaps those tokens are dead: the next canary may be anyone.
        let later = at(400);
        assert!(surge.sight(later.boot).unwrap().canary, "nobody else came for long");
        let soon = at(110);
        assert!(!surge.sight(soon.boot).unwrap().canary && surge.closed_to(None, soon.boot).is_none());
        assert!(surge.probe());
        surge.refuses(99, true, later, 0);
        let later = at(600);
        assert!(surge.closed_to(Some(100), later.boot).is_some() && surge.closed_to(Some(99), later.boot).is_none());
        assert!(surge.closed_to(Some(100), at(1_000).boot).is_none(), "if no refused grant is left, anyone");
        assert!(surge.probe() && surge.renews(99, at(1_000)));
        assert_eq!((surge.sight(at(1_000).boot), surge.closed_to(Some(100), at(1_000).boot)), (None, None));
        assert_eq!((surge.take_over(), surge.take_over()), (Some(at(0).wall), None));
    }

    #[test]
    fn tokens_that_are_dead_cause_no_second_surge() {
        let mut surge = surging();
        surge.renews(99, at(40));
        for grant in 0..5 {
            assert_eq!(surge.refuses(grant, false, at(41), 0), None, "it is tried once more, and refused again");
        }
        // New ones count, and so does one that has got tokens in between.
        surge.renews(0, at(50));
        assert!((10..14).all(|grant| surge.refuses(grant, false, at(51), 0).is_none()));
        assert!(surge.refuses(0, false, at(52), 0).is_some());
    }

    #[test]
    fn people_end_a_surge() {
        let mut surge = surging();
        assert!(surge.end() && !surge.end());
        assert_eq!(surge.take_over(), Some(at(0).wall));
        assert!(surge.closed_to(None, at(5).boot).is_none());
    }
}
