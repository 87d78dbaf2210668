use super::*;

#[test]
fn a_report_about_the_current_token_withdraws_it_and_starts_one_refresh() {
    let mut bench = Bench::with(row());
    for _ in 0..1_000 {
        bench.feed(Event::Rejected(row().generation));
    }
    assert_eq!((bench.started, bench.standing()), (1, TokenStanding::Withdrawn));
    assert!(bench.ask(0).is_none());
    bench.ends(End::Renewed, renewed(&row(), WALL_NOW));
    assert_eq!(bench.standing(), TokenStanding::Good);
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), row().generation.next());
    bench.feed(Event::Rejected(row().generation));
    assert_eq!((bench.started, bench.standing()), (1, TokenStanding::Good), "that one is replaced already");
}

#[test]
fn a_report_about_an_unknown_generation_reads_again_and_refreshes_nothing() {
    let mut bench = Bench::with(row());
    bench.feed(Event::Rejected(Generation(99)));
    assert_eq!(bench.log, ["read"]);
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert!(bench.served());
    assert_eq!((bench.started, bench.standing()), (0, TokenStanding::Good));

    // Another replica stored that one some time ago, and it is what was rejected.
    let newer = renewed(&row(), WALL_NOW.minus(seconds(60)));
    bench.feed(Event::Rejected(newer.generation));
    bench.feed(Event::Row(Some(Arc::new(newer))));
    assert_eq!((bench.started, bench.standing()), (1, TokenStanding::Withdrawn));
}

#[test]
fn a_rejected_token_is_the_last_good_one_again_once_its_refresh_has_failed() {
    let mut bench = Bench::with(row());
    bench.feed(Event::Rejected(row().generation));
    assert!(bench.ask(0).is_none());
    bench.ends(End::Settled, failing(row(), WALL_NOW + seconds(60)));
    assert_eq!(bench.standing(), TokenStanding::Failing);
    assert!(bench.answer(1).unwrap().is_ok());
}

#[test]
fn a_new_token_that_is_refused_at_once_is_replaced_a_minute_later() {
    let mut bench = Bench::with(row());
    let rejected = |bench: &mut Bench, generation| {
        bench.feed(Event::Rejected(generation));
        (bench.started, bench.standing())
    };
    assert_eq!(rejected(&mut bench, row().generation), (1, TokenStanding::Withdrawn), "it came with a connect");
    let first = renewed(&row(), WALL_NOW);
    bench.ends(End::Renewed, first.clone());
    for _ in 0..1_000 {
        assert_eq!(rejected(&mut bench, first.generation), (1, TokenStanding::Rejected));
    }
    assert_eq!(bench.ask(0).unwrap().unwrap().warning(), Some(Warning::Rejected));
    assert_eq!(bench.wake_at, Some(WALL_NOW + seconds(60)));
    bench.pass(seconds(60));
    bench.feed(Event::Tick);
    assert_eq!(bench.started, 2);
    // A short life: a quarter of it.
    bench.machine.touch(bench.now);
    let short = Row { expires: Expires::At(bench.now.wall + seconds(20)), ..renewed(&first, bench.now.wall) };
    bench.ends(End::Renewed, Row { generation: first.generation.next(), ..short.clone() });
    assert_eq!(rejected(&mut bench, first.generation.next()), (2, TokenStanding::Rejected));
    bench.pass(seconds(5));
    bench.feed(Event::Tick);
    assert_eq!(bench.started, 3);
}

#[test]
fn a_closed_gate_starts_nothing_and_is_told() {
    let closed = |seconds_left, cause| GateSight {
        closed: Some(GateClosed { wait: seconds(seconds_left), cause }),
        recovered: None,
        opened: None,
    };
    let mut bench = Bench::with(expired());
    let before = bench.started;
    bench.ends(End::Settled, expired());
    bench.pass(seconds(2));
    bench.gate = closed(60, Cause::ClientRefused);
    assert_eq!(unavailable(bench.ask(0)), (seconds(60), Cause::ClientRefused));
    bench.feed(Event::RefreshNow(1));
    assert!(matches!(bench.refreshed[0].1, Err(Error::Unavailable { cause: Cause::ClientRefused, .. })));
    // The gate opens before the deadline: worth waiting for.
    bench.gate = closed(5, Cause::IdpThrottled);
    assert!(bench.ask(0).is_none());
    assert_eq!((bench.started, bench.wake_at), (before, Some(bench.now.wall + seconds(5))));
    bench.pass(seconds(5));
    bench.gate = GateSight::default();
    bench.feed(Event::Tick);
    assert_eq!(bench.started, before + 1);
}

#[test]
fn a_backoff_ends_with_the_trouble_of_the_provider() {
    let mut bench = Bench::with(failing(expired(), WALL_NOW + seconds(300)));
    assert_eq!(unavailable(bench.ask(0)), (seconds(300), Cause::IdpDown));
    bench.pass(seconds(20));
    bench.gate.recovered = Some(bench.now.wall);
    assert!(bench.ask(0).is_none());
    assert_eq!(bench.started, 1);
    // It fails again: that is its own.
    let error = |row: Row| Row {
        last_error: row.last_error.map(|error| Box::new(LastError { at: NOW + seconds(21), ..*error })),
        ..row
    };
    bench.pass(seconds(1));
    bench.ends(End::Settled, error(failing(expired(), WALL_NOW + seconds(300))));
    assert_eq!(unavailable(bench.ask(0)), (seconds(279), Cause::IdpDown));
}

#[test]
fn who_waits_for_a_refresh_that_runs_ahead_of_need_makes_it_wanted() {
    let mut bench = Bench::with(Row { due_at: Some(WALL_NOW), ..row() });
    assert_eq!(bench.log, ["start ahead"]);
    assert!(bench.served());
    assert!(bench.log.is_empty());
    bench.pass(seconds(3_600));
    assert!(bench.ask(0).is_none());
    assert_eq!(bench.log, ["hurry"]);
    assert!(bench.ask(0).is_none());
    assert!(bench.log.is_empty(), "{:?}", bench.log);
}

#[test]
fn refresh_now_tells_whether_it_refreshed() {
    let answer = |bench: &Bench| bench.refreshed.last().unwrap().1.clone();
    // Just refreshed.
    let mut bench = Bench::with(renewed(&row(), WALL_NOW));
    bench.feed(Event::RefreshNow(1));
    assert_eq!((answer(&bench), bench.started), (Ok(false), 0));
    // Starts, and joins what runs.
    bench.pass(seconds(10));
    bench.feed(Event::RefreshNow(2));
    bench.feed(Event::RefreshNow(3));
    assert_eq!((bench.refreshed.len(), bench.started), (1, 1));
    let twice = renewed(&renewed(&row(), WALL_NOW), bench.now.wall);
    bench.ends(End::Renewed, twice.clone());
    assert_eq!((bench.refreshed.len(), answer(&bench), bench.started), (3, Ok(true), 1));
    // Before a backoff, and the failure is told.
    let mut bench = Bench::with(failing(row(), WALL_NOW + seconds(60)));
    bench.feed(Event::RefreshNow(1));
    assert_eq!(bench.started, 1);
    bench.ends(End::Settled, failing(row(), WALL_NOW + seconds(90)));
    let expected = Error::Unavailable { retry_after: seconds(90), cause: Cause::IdpDown };
    assert_eq!((answer(&bench), bench.started), (Err(expected), 1));
}

#[test]
fn refresh_now_does_not_go_around_a_doubt_a_verdict_or_a_hold() {
    let doubtful = Row { intent: claimed_row(&[1]).intent, ..row() };
    let mut bench = Bench::with(doubtful.clone());
    bench.ends(End::Until(WALL_NOW + seconds(30), Cause::InDoubt), doubtful);
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
    bench.ends(End::Settled, failing(row(), WALL_NOW + seconds(60)));
    assert!(matches!(bench.refreshed[..], [(1, Err(Error::Unavailable { .. }))]));

    let mut bench = Bench::new();
    bench.feed(Event::RefreshNow(1));
    bench.feed(Event::Row(Some(Arc::new(row()))));
    bench.ends(End::Renewed, renewed(&row(), WALL_NOW));
    assert_eq!(bench.refreshed, [(1, Ok(true))]);
}

#[test]
fn nothing_starts_for_an_identity_provider_that_is_held_and_everything_once_it_is_released() {
    let people_hold = GateSight {
        closed: Some(GateClosed { wait: seconds(60), cause: Cause::IdpHeld }),
        recovered: None,
        opened: None,
    };
    let held = |row: Row| {
        let mut bench = Bench::new();
        bench.gate = people_hold;
        bench.machine.touch(bench.now);
        bench.feed(Event::Tick);
        bench.feed(Event::Row(Some(Arc::new(row))));
        bench
    };
    let mut bench = held(row());
    assert!(bench.served(), "valid tokens are");
    let mut bench = held(expired());
    assert_eq!(unavailable(bench.ask(0)), (seconds(60), Cause::IdpHeld));
    bench.feed(Event::RefreshNow(1));
    let refused = Error::Unavailable { retry_after: seconds(60), cause: Cause::IdpHeld };
    assert_eq!((bench.refreshed[0].1.clone(), bench.started), (Err(refused), 0));
    bench.gate = GateSight::default();
    bench.feed(Event::Tick);
    assert_eq!(bench.started, 1, "nobody has to ask");

    // What runs goes on, and those who wait for it with it.
    bench.gate = people_hold;
    assert!(bench.ask(0).is_none());
    bench.ends(End::Renewed, renewed(&expired(), WALL_NOW));
    assert!(bench.answer(2).unwrap().is_ok());
    // An attempt that was refused its slot leaves nobody waiting.
    let mut bench = Bench::with(expired());
    assert!(bench.ask(0).is_none());
    bench.gate = people_hold;
    bench.ends(End::Settled, expired());
    assert_eq!((unavailable(bench.answer(1)).1, bench.started), (Cause::IdpHeld, 1));
}

#[test]
fn a_late_report_of_a_replaced_token_leaves_the_one_that_the_journal_has() {
    let mut bench = Bench::with(expired());
    assert!(bench.ask(0).is_none());
    // The store does not respond: the row is as it was.
    let journaled = renewed(&row(), bench.now.wall);
    bench.published = Some(issued(&journaled));
    bench.feed(Event::Progress);
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), journaled.generation);
    bench.feed(Event::Rejected(row().generation));
    assert_eq!((bench.standing(), bench.started), (TokenStanding::Good, 1));
    assert_eq!(bench.ask(0).unwrap().unwrap().generation(), journaled.generation);
}

#[test]
fn reports_while_the_row_is_read_cause_no_read_each() {
    let mut bench = Bench::new();
    bench.machine.touch(bench.now);
    bench.feed(Event::Tick);
    assert_eq!(bench.log, ["read"]);
    for _ in 0..1_000 {
        bench.feed(Event::Rejected(row().generation));
        assert!(bench.log.is_empty(), "{:?}", bench.log);
    }
}
