use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::machine::{Effect, Event, Limits, Machine, Sight, Waiting};
use crate::{
    clock::Reading,
    error::{Cause, Error},
    model::{AccessToken, Attempted, Expires, Generation, Issued, LastError, Row, Standing, Time, Token, VerdictBy},
    protocol::{
        attempt::End,
        tests::{self as sample, NOW, claimed_row, id, seconds},
    },
};

const IDLE: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine with what its actor would do: the clock, what is published, and what was wanted.
struct Bench {
    machine: Machine<u32, u32>,
    now: Reading,
    published: Option<Arc<Issued>>,
    watched: bool,
    asked: u32,
    log: Vec<String>,
    answers: Vec<(u32, Result<Token, Error>)>,
    refreshed: Vec<(u32, Result<bool, Error>)>,
    started: usize,
    ended: usize,
    wake_at: Option<Time>,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(Limits { waiters: 3, idle_after: IDLE }),
            now: Reading { wall: NOW, boot: Time(0) },
            published: None,
            watched: false,
            asked: 0,
            log: Vec::new(),
            answers: Vec::new(),
            refreshed: Vec::new(),
            started: 0,
            ended: 0,
            wake_at: None,
        }
    }

    /// A machine that has read this row.
    fn with(row: Row) -> Self {
        let mut bench = Self::new();
        bench.feed(Event::Tick);
        bench.feed(Event::Row(Some(Arc::new(row))));
        bench
    }

    fn feed(&mut self, event: Event<u32, u32>) {
        self.log.clear();
        self.ended += usize::from(matches!(event, Event::Ended(..)));
        let mut effects = self.step(event);
        loop {
            let republished = effects.iter().any(|effect| matches!(effect, Effect::Publish(_) | Effect::Forget));
            for effect in effects {
                self.carry_out(effect);
            }
            if !republished {
                return;
            }
            effects = self.step(Event::Tick);
        }
    }

    fn step(&mut self, event: Event<u32, u32>) -> Vec<Effect<u32, u32>> {
        let published = self.published.clone();
        let sight = Sight { now: self.now, published: published.as_ref(), last_used: Time(0), watched: self.watched };
        self.machine.step(event, sight)
    }

    fn carry_out(&mut self, effect: Effect<u32, u32>) {
        let name = match effect {
            Effect::Read => "read".to_owned(),
            Effect::Publish(row) => {
                if self.published.as_ref().is_none_or(|issued| issued.generation <= row.generation) {
                    self.published = Some(issued(&row));
                }
                return;
            }
            Effect::Forget => {
                self.published = None;
                "forget".to_owned()
            }
            Effect::Stand(standing) => {
                self.published.iter().for_each(|issued| issued.set_standing(standing));
                return;
            }
            Effect::Start(_) => {
                self.started += 1;
                assert_eq!(self.started, self.ended + 1, "one attempt at a time");
                "start".to_owned()
            }
            Effect::Answer(who, answer) => {
                assert!(self.answers.iter().all(|(other, _)| *other != who), "{who} is answered twice");
                self.answers.push((who, answer));
                return;
            }
            Effect::Refreshed(who, answer) => {
                assert!(self.refreshed.iter().all(|(other, _)| *other != who), "{who} is answered twice");
                self.refreshed.push((who, answer));
                return;
            }
            Effect::WakeAt(time) => {
                assert!(time > self.now.wall, "it would run in circles");
                self.wake_at = Some(time);
                return;
            }
            Effect::Sleep => "sleep".to_owned(),
        };
        self.log.push(name);
    }

    fn pass(&mut self, elapsed: Duration) {
        self.now = self.now.plus(elapsed);
    }

    fn ask(&mut self, min_ttl: u64) -> Option<Result<Token, Error>> {
        self.asked += 1;
        let (who, deadline) = (self.asked, self.now.boot + PATIENCE);
        let min_ttl = seconds(min_ttl);
        self.feed(Event::Asked(Waiting { who, min_ttl, deadline, renewed: false }));
        self.answer(who)
    }

    fn answer(&self, who: u32) -> Option<Result<Token, Error>> {
        self.answers.iter().find(|(other, _)| *other == who).map(|(_, answer)| answer.clone())
    }

    fn served(&mut self) -> bool {
        matches!(self.ask(0), Some(Ok(_)))
    }

    fn ends(&mut self, end: End, row: Row) {
        self.feed(Event::Ended(end, Some(Arc::new(row))));
    }

    fn standing(&self) -> Standing {
        self.published.as_ref().unwrap().standing()
    }
}

fn issued(row: &Row) -> Arc<Issued> {
    let token = AccessToken::new(format!("ts-test-secret-{}", row.generation));
    let boot_end = row.expires.at().map(|end| Time(end.0 - NOW.0));
    Arc::new(Issued::new(token, "Bearer", "", row.expires, row.generation, row.due_at, boot_end, false))
}

/// Valid for an hour from now, due in 3000 s.
fn row() -> Row {
    sample::row()
}

/// The row after a refresh at `at`.
fn renewed(row: &Row, at: Time) -> Row {
    Row {
        generation: row.generation.next(),
        commit: Some(Attempted { attempt: id(1), epoch: row.epoch }),
        issued_at: at,
        expires: Expires::At(at + seconds(3_600)),
        due_at: Some(at + seconds(3_000)),
        ..sample::row()
    }
}

fn expired() -> Row {
    Row { issued_at: Time(NOW.0 - 3_600_000), expires: Expires::At(NOW), due_at: Some(NOW), ..row() }
}

fn failing(row: Row, retry_at: Time) -> Row {
    let error = LastError { code: "server_error".to_owned(), cause: Cause::IdpDown, at: NOW, failures: 1 };
    Row { retry_at: Some(retry_at), last_error: Some(error), ..row }
}

fn unavailable(answer: Option<Result<Token, Error>>) -> (Duration, Cause) {
    match answer {
        Some(Err(Error::Unavailable { retry_after, cause })) => (retry_after, cause),
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

#[test]
fn a_fresh_token_is_served_and_nothing_starts() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(0).map(|_| ()), None);
    assert_eq!(bench.log, ["read"]);
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), row().generation);
    assert!(bench.served() && bench.log.is_empty());
    assert_eq!(bench.started, 0);
}

#[test]
fn a_due_token_is_served_and_refreshed_once() {
    let mut bench = Bench::with(row());
    bench.pass(seconds(3_000));
    assert!(bench.served());
    assert_eq!(bench.log, ["start"]);
    for _ in 0..5 {
        assert!(bench.served() && bench.log.is_empty());
    }
    let row = renewed(&row(), bench.now.wall);
    bench.ends(End::Renewed, row.clone());
    assert_eq!(bench.ask(0).unwrap().unwrap().generation(), row.generation);
    assert_eq!(bench.started, 1);
}

#[test]
fn an_expired_token_is_waited_for_and_everybody_gets_the_new_one() {
    let mut bench = Bench::with(expired());
    assert_eq!(bench.started, 1);
    assert!(bench.ask(0).is_none() && bench.ask(0).is_none());
    bench.feed(Event::Progress);
    assert!(bench.answers.is_empty());
    bench.ends(End::Renewed, renewed(&row(), NOW));
    assert!(bench.answer(1).unwrap().is_ok() && bench.answer(2).unwrap().is_ok());
}

#[test]
fn a_token_that_is_published_before_the_attempt_ends_is_served_at_once() {
    let mut bench = Bench::with(expired());
    assert!(bench.ask(0).is_none());
    bench.published = Some(issued(&renewed(&row(), NOW)));
    bench.feed(Event::Progress);
    assert!(bench.answer(1).unwrap().is_ok());
}

#[test]
fn waiters_beyond_the_bound_are_told_that_it_is_busy() {
    let mut bench = Bench::with(expired());
    for _ in 0..3 {
        assert!(bench.ask(0).is_none());
    }
    assert!(matches!(bench.ask(0), Some(Err(Error::Busy { .. }))));
    bench.machine.forget_waiters(|who| *who == 2);
    assert!(bench.ask(0).is_none());
    bench.ends(End::Renewed, renewed(&row(), NOW));
    assert!(bench.answer(2).is_none() && bench.answer(5).unwrap().is_ok());
}

#[test]
fn a_min_ttl_above_three_quarters_of_the_life_is_refused_without_a_refresh() {
    let mut bench = Bench::with(row());
    assert!(bench.ask(3_500).unwrap().is_ok(), "the token in hand lives that long");
    bench.pass(seconds(1_000));
    let refused = bench.ask(2_701).unwrap();
    assert_eq!(refused.unwrap_err(), Error::MinTtlUnsatisfiable { max_ttl: seconds(2_700) });
    assert_eq!(bench.started, 0);
}

#[test]
fn a_min_ttl_that_a_new_token_satisfies_starts_one_refresh() {
    let mut bench = Bench::with(row());
    bench.pass(seconds(1_000));
    assert!(bench.ask(2_700).is_none());
    assert_eq!(bench.log, ["start"]);
    let row = renewed(&row(), bench.now.wall);
    bench.ends(End::Renewed, row.clone());
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), row.generation);
}

#[test]
fn a_token_that_is_too_short_even_when_new_is_refused_after_one_refresh() {
    let mut bench = Bench::with(row());
    bench.pass(seconds(2_000));
    assert!(bench.ask(1_800).is_none());
    let short = Row { expires: Expires::At(bench.now.wall + seconds(1_000)), ..renewed(&row(), bench.now.wall) };
    bench.ends(End::Renewed, short);
    assert_eq!(bench.answer(1).unwrap().unwrap_err(), Error::MinTtlUnsatisfiable { max_ttl: seconds(750) });
    assert_eq!(bench.started, 1);
}

#[test]
fn a_caller_waits_for_a_retry_before_its_deadline_and_is_told_of_a_later_one() {
    let mut bench = Bench::with(failing(expired(), NOW + seconds(9)));
    assert!(bench.ask(0).is_none());
    assert_eq!((bench.started, bench.wake_at), (0, Some(NOW + seconds(9))));
    bench.pass(seconds(9));
    bench.feed(Event::Tick);
    assert_eq!(bench.started, 1);
    bench.ends(End::Settled, failing(expired(), NOW + seconds(100)));
    assert_eq!(unavailable(bench.answer(1)), (seconds(91), Cause::IdpDown));
    assert_eq!(unavailable(bench.ask(0)), (seconds(91), Cause::IdpDown));
    assert_eq!(bench.started, 1);
}

#[test]
fn a_failing_refresh_is_no_error_while_the_token_is_valid() {
    let mut bench = Bench::with(row());
    bench.pass(seconds(3_100));
    bench.feed(Event::Tick);
    bench.ends(End::Settled, failing(row(), bench.now.wall + seconds(60)));
    assert_eq!(bench.standing(), Standing::Failing);
    assert!(bench.served());
    assert_eq!(bench.wake_at, Some(bench.now.wall + seconds(60)));
}

#[test]
fn a_doubt_is_waited_for_like_a_backoff() {
    let doubtful = |row: Row| Row { intent: claimed_row(&[1]).intent, ..row };
    for (until, waits) in [(8, true), (30, false)] {
        let mut bench = Bench::with(expired());
        assert!(bench.ask(0).is_none());
        bench.ends(End::Until(NOW + seconds(until)), doubtful(expired()));
        if waits {
            assert!(bench.answer(1).is_none());
            assert_eq!(bench.wake_at, Some(NOW + seconds(until)));
            bench.pass(seconds(until));
            bench.feed(Event::Tick);
            assert_eq!(bench.started, 2);
        } else {
            assert_eq!(unavailable(bench.answer(1)), (seconds(30), Cause::InDoubt));
            assert_eq!(bench.started, 1);
        }
    }
    let mut valid = Bench::with(doubtful(row()));
    valid.ends(End::Until(NOW + seconds(30)), doubtful(row()));
    assert_eq!(valid.standing(), Standing::InDoubt);
    assert!(valid.served());
}

#[test]
fn a_pause_ends_with_the_token_that_it_was_for() {
    let doubtful = Row { intent: claimed_row(&[1]).intent, ..expired() };
    let mut bench = Bench::with(doubtful.clone());
    bench.ends(End::Until(NOW + seconds(3_600)), doubtful);
    // The user consents anew, with a token that does not live as long as the doubt would have.
    bench.feed(Event::Row(Some(Arc::new(renewed(&row(), Time(NOW.0 - 3_000_000))))));
    assert_eq!(bench.started, 2);
}

#[test]
fn a_throttled_provider_is_named_as_the_cause() {
    let mut bench = Bench::with(expired());
    bench.ends(End::Until(NOW + seconds(50)), expired());
    assert_eq!(unavailable(bench.ask(0)), (seconds(50), Cause::IdpThrottled));
}

#[test]
fn the_last_token_is_served_until_it_ends_and_then_the_user_must_reconnect() {
    let mut bench = Bench::with(Row { verdict: sample::verdict(VerdictBy::Idp), ..row() });
    assert_eq!(bench.standing(), Standing::ReconnectRequired);
    assert!(bench.served());
    bench.pass(seconds(3_600));
    let Some(Err(Error::ReconnectRequired { reason, .. })) = bench.ask(0) else { panic!("refused") };
    assert_eq!((&*reason, bench.started), ("invalid_grant", 0));
}

#[test]
fn a_held_grant_serves_what_is_valid_and_starts_nothing() {
    let mut bench = Bench::with(Row { held: Some("copied".to_owned()), ..row() });
    bench.pass(seconds(3_100));
    assert!(bench.served());
    bench.pass(seconds(600));
    assert_eq!(unavailable(bench.ask(0)).1, Cause::Held);
    assert_eq!(bench.started, 0);
}

#[test]
fn without_refresh_token_the_access_token_is_all_there_is() {
    let mut bench = Bench::with(Row { refresh_token: None, ..row() });
    assert!(bench.served());
    bench.pass(seconds(3_600));
    assert!(matches!(bench.ask(0), Some(Err(Error::ReconnectRequired { .. }))));
    assert_eq!(bench.started, 0);
}

#[test]
fn a_report_about_the_current_token_withdraws_it_and_starts_one_refresh() {
    let mut bench = Bench::with(row());
    for _ in 0..1_000 {
        bench.feed(Event::Rejected(row().generation));
    }
    assert_eq!((bench.started, bench.standing()), (1, Standing::Withdrawn));
    assert!(bench.ask(0).is_none());
    bench.ends(End::Renewed, renewed(&row(), NOW));
    assert_eq!(bench.standing(), Standing::Good);
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), row().generation.next());
    bench.feed(Event::Rejected(row().generation));
    assert_eq!((bench.started, bench.standing()), (1, Standing::Good), "that one is replaced already");
}

#[test]
fn a_report_about_an_unknown_generation_reads_again_and_refreshes_nothing() {
    let mut bench = Bench::with(row());
    bench.feed(Event::Rejected(Generation(99)));
    assert_eq!(bench.log, ["read"]);
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert!(bench.served());
    assert_eq!((bench.started, bench.standing()), (0, Standing::Good));

    // Another replica stored that one, and it is what was rejected.
    let newer = renewed(&row(), NOW);
    bench.feed(Event::Rejected(newer.generation));
    bench.feed(Event::Row(Some(Arc::new(newer))));
    assert_eq!((bench.started, bench.standing()), (1, Standing::Withdrawn));
}

#[test]
fn a_rejected_token_is_the_last_good_one_again_once_its_refresh_has_failed() {
    let mut bench = Bench::with(row());
    bench.feed(Event::Rejected(row().generation));
    assert!(bench.ask(0).is_none());
    bench.ends(End::Settled, failing(row(), NOW + seconds(60)));
    assert_eq!(bench.standing(), Standing::Failing);
    assert!(bench.answer(1).unwrap().is_ok());
}

#[test]
fn nothing_is_served_of_a_tombstone() {
    let mut bench = Bench::with(row());
    assert!(bench.served());
    let gone = Row { tombstone: sample::tombstone(true), generation: Generation(5), ..row() };
    bench.feed(Event::Row(Some(Arc::new(gone))));
    assert_eq!(bench.log, ["forget"]);
    assert!(matches!(bench.ask(0), Some(Err(Error::NotConnected))));
    assert!(bench.published.is_none() && bench.started == 0);

    let mut absent = Bench::new();
    assert!(absent.ask(0).is_none());
    absent.feed(Event::Row(None));
    assert!(matches!(absent.answer(1), Some(Err(Error::NotConnected))));
}

#[test]
fn a_doubt_about_another_token_is_cleared_whatever_the_row_is() {
    let doubtful = Row { intent: claimed_row(&[1]).intent, generation: Generation(5), ..row() };
    let tombstone = Row { tombstone: sample::tombstone(true), ..doubtful.clone() };
    let refused = Row { verdict: sample::verdict(VerdictBy::Idp), ..doubtful.clone() };
    for row in [doubtful, tombstone, refused] {
        assert_eq!(Bench::with(row).started, 1);
    }
    let moot = Row { intent: claimed_row(&[1]).intent, verdict: sample::verdict(VerdictBy::Idp), ..row() };
    assert_eq!(Bench::with(moot).started, 0);
}

#[test]
fn an_older_row_does_not_replace_a_newer_one() {
    let newer = renewed(&row(), NOW);
    let mut bench = Bench::with(newer.clone());
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(bench.ask(0).unwrap().unwrap().generation(), newer.generation);
}

#[test]
fn an_unreadable_row_is_said_to_be_and_read_again_when_somebody_asks() {
    let mut bench = Bench::new();
    assert!(bench.ask(0).is_none());
    bench.feed(Event::RefreshNow(1));
    bench.feed(Event::Unreadable);
    assert_eq!(unavailable(bench.answer(1)).1, Cause::StoreDown);
    assert!(matches!(bench.refreshed[0], (1, Err(Error::Unavailable { cause: Cause::StoreDown, .. }))));
    assert!(bench.log.is_empty(), "it does not read in circles: {:?}", bench.log);
    assert!(bench.wake_at.is_some());
    assert!(bench.ask(0).is_none());
    assert_eq!(bench.log, ["read"]);
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert!(bench.answer(2).unwrap().is_ok());
}

#[test]
fn it_sleeps_when_nobody_asked_for_long_unless_watched_or_busy() {
    let mut bench = Bench::with(row());
    assert!(bench.served());
    bench.pass(IDLE - seconds(1));
    bench.feed(Event::Tick);
    assert!(bench.log.is_empty());
    bench.pass(seconds(1));
    bench.watched = true;
    bench.feed(Event::Tick);
    assert!(bench.log.is_empty());
    assert!(bench.wake_at.unwrap() >= bench.now.wall + seconds(60), "nor does it look every second");
    bench.watched = false;
    bench.feed(Event::Tick);
    assert_eq!(bench.log, ["sleep"]);

    let mut busy = Bench::with(expired());
    busy.pass(IDLE * 2);
    busy.feed(Event::Tick);
    assert!(busy.log.is_empty());
    busy.ends(End::Renewed, renewed(&row(), busy.now.wall));
    assert_eq!(busy.log, ["sleep"]);
}

#[test]
fn refresh_now_tells_whether_it_refreshed() {
    let answer = |bench: &Bench| bench.refreshed.last().unwrap().1.clone();
    // Just refreshed.
    let mut bench = Bench::with(renewed(&row(), NOW));
    bench.feed(Event::RefreshNow(1));
    assert_eq!((answer(&bench), bench.started), (Ok(false), 0));
    // Starts, and joins what runs.
    bench.pass(seconds(10));
    bench.feed(Event::RefreshNow(2));
    bench.feed(Event::RefreshNow(3));
    assert_eq!((bench.refreshed.len(), bench.started), (1, 1));
    let twice = renewed(&renewed(&row(), NOW), bench.now.wall);
    bench.ends(End::Renewed, twice.clone());
    assert_eq!((bench.refreshed.len(), answer(&bench), bench.started), (3, Ok(true), 1));
    // Before a backoff, and the failure is told.
    let mut bench = Bench::with(failing(row(), NOW + seconds(60)));
    bench.feed(Event::RefreshNow(1));
    assert_eq!(bench.started, 1);
    bench.ends(End::Settled, failing(row(), NOW + seconds(90)));
    let expected = Error::Unavailable { retry_after: seconds(90), cause: Cause::IdpDown };
    assert_eq!((answer(&bench), bench.started), (Err(expected), 1));
}

#[test]
fn refresh_now_does_not_go_around_a_doubt_a_verdict_or_a_hold() {
    let doubtful = Row { intent: claimed_row(&[1]).intent, ..row() };
    let mut bench = Bench::with(doubtful.clone());
    bench.ends(End::Until(NOW + seconds(30)), doubtful);
    bench.feed(Event::RefreshNow(1));
    let expected = Error::Unavailable { retry_after: seconds(30), cause: Cause::InDoubt };
    assert_eq!((bench.refreshed[0].1.clone(), bench.started), (Err(expected), 1));
    for row in [
        Row { verdict: sample::verdict(VerdictBy::Idp), ..row() },
        Row { held: Some("by hand".to_owned()), ..row() },
        Row { refresh_token: None, ..row() },
    ] {
        let mut bench = Bench::with(row);
        bench.feed(Event::RefreshNow(1));
        assert!(bench.refreshed[0].1.is_err() && bench.started == 0);
    }
}

#[test]
fn refresh_now_of_a_cold_grant_that_fails_is_not_called_a_success() {
    let mut bench = Bench::new();
    bench.feed(Event::RefreshNow(1));
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(bench.started, 1);
    bench.ends(End::Settled, failing(row(), NOW + seconds(60)));
    assert!(matches!(bench.refreshed[..], [(1, Err(Error::Unavailable { .. }))]));

    let mut bench = Bench::new();
    bench.feed(Event::RefreshNow(1));
    bench.feed(Event::Row(Some(Arc::new(row()))));
    bench.ends(End::Renewed, renewed(&row(), NOW));
    assert_eq!(bench.refreshed, [(1, Ok(true))]);
}

#[test]
fn an_attempt_that_came_to_nothing_is_not_repeated_at_once() {
    // The same row, one whose late claim was cancelled, and one that cannot be read.
    let cancelled = Row { epoch: 8, ..expired() };
    for row in [Some(Arc::new(expired())), Some(Arc::new(cancelled)), None] {
        let mut bench = Bench::with(expired());
        assert_eq!(bench.started, 1);
        bench.feed(Event::Ended(End::Settled, row));
        bench.feed(Event::Row(Some(Arc::new(expired()))));
        bench.feed(Event::Tick);
        assert_eq!(bench.started, 1);
        assert!(bench.ask(0).is_none(), "a second is worth waiting for");
        bench.pass(seconds(1));
        bench.feed(Event::Tick);
        assert_eq!(bench.started, 2);
    }
}

#[test]
fn tokens_that_are_issued_expired_are_not_refreshed_in_circles() {
    let mut bench = Bench::with(expired());
    let mut row = expired();
    assert!(bench.ask(0).is_none());
    for _ in 0..5 {
        row = Row { issued_at: NOW, expires: Expires::At(NOW), due_at: Some(NOW), ..renewed(&row, NOW) };
        bench.ends(End::Renewed, row.clone());
    }
    assert_eq!(bench.started, 1);
}

#[derive(Clone, Debug)]
enum Happening {
    Pass(u64),
    Ask(u64),
    Reject(u64),
    RefreshNow,
    Read(u8),
    Unreadable,
    End(u8),
    Progress,
    Watch(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1..4_000_u64).prop_map(Happening::Pass),
        4 => prop_oneof![Just(0), 1..5_000_u64].prop_map(Happening::Ask),
        1 => (0..12_u64).prop_map(Happening::Reject),
        1 => Just(Happening::RefreshNow),
        4 => any::<u8>().prop_map(Happening::Read),
        1 => Just(Happening::Unreadable),
        6 => any::<u8>().prop_map(Happening::End),
        1 => Just(Happening::Progress),
        1 => any::<bool>().prop_map(Happening::Watch),
    ]
}

/// One of the rows that a store could hold after `row`.
fn next_row(row: &Row, now: Time, choice: u8) -> Option<Arc<Row>> {
    let generation = row.generation.next();
    Some(Arc::new(match choice % 10 {
        0 => return None,
        1 => failing(row.clone(), now + seconds(60)),
        2 => Row { intent: claimed_row(&[1]).intent, ..row.clone() },
        3 => Row { verdict: sample::verdict(VerdictBy::Idp), generation, ..row.clone() },
        4 => Row { tombstone: sample::tombstone(true), generation, ..row.clone() },
        5 => Row { held: Some("by hand".to_owned()), generation, ..row.clone() },
        6 => row.clone(),
        7 => Row { refresh_token: None, generation, ..row.clone() },
        _ => renewed(row, now),
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everybody_is_answered_once_and_nothing_runs_in_circles(
        happenings in proptest::collection::vec(happening(), 1..60)
    ) {
        let mut bench = Bench::new();
        let (mut row, mut reading, mut refreshers) = (sample::row(), false, 0);
        for happening in happenings {
            match happening {
                Happening::Pass(elapsed) => {
                    bench.pass(seconds(elapsed));
                    bench.feed(Event::Tick);
                }
                Happening::Ask(min_ttl) => drop(bench.ask(min_ttl)),
                Happening::Reject(generation) => bench.feed(Event::Rejected(Generation(generation))),
                Happening::RefreshNow => {
                    refreshers += 1;
                    bench.feed(Event::RefreshNow(refreshers));
                }
                Happening::Read(choice) if reading => {
                    reading = false;
                    let next = next_row(&row, bench.now.wall, choice);
                    row = next.as_deref().cloned().unwrap_or(row);
                    bench.feed(Event::Row(next));
                }
                Happening::Unreadable if reading => {
                    reading = false;
                    bench.feed(Event::Unreadable);
                }
                Happening::End(choice) if bench.started > bench.ended => {
                    let next = next_row(&row, bench.now.wall, choice);
                    row = next.as_deref().cloned().unwrap_or(row);
                    let end = match choice / 10 % 3 {
                        0 => End::Renewed,
                        1 => End::Settled,
                        _ => End::Until(bench.now.wall + seconds(30)),
                    };
                    bench.feed(Event::Ended(end, next));
                }
                Happening::Watch(watched) => bench.watched = watched,
                Happening::Progress => bench.feed(Event::Progress),
                _ => {}
            }
            reading |= bench.log.iter().any(|effect| effect == "read");
            let running = bench.started > bench.ended;
            let waiting = bench.answers.len() < bench.asked as usize || bench.refreshed.len() < refreshers as usize;
            prop_assert!(!waiting || bench.machine.is_busy(), "somebody is forgotten");
            prop_assert!(running || reading || !waiting || bench.wake_at.is_some_and(|time| time > bench.now.wall),
                "nothing will ever answer those who wait");
            for (_, answer) in &bench.answers {
                prop_assert!(!matches!(answer, Err(Error::Internal(_))));
            }
        }
    }
}
