use super::*;

#[test]
fn a_caller_waits_for_a_retry_before_its_deadline_and_is_told_of_a_later_one() {
    let mut bench = Bench::with(failing(expired(), WALL_NOW + seconds(9)));
    assert!(bench.ask(0).is_none());
    assert_eq!((bench.started, bench.wake_at), (0, Some(WALL_NOW + seconds(9))));
    bench.pass(seconds(9));
    bench.feed(Event::Tick);
    assert_eq!(bench.started, 1);
    bench.ends(End::Settled, failing(expired(), WALL_NOW + seconds(100)));
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
    assert_eq!(bench.standing(), TokenStanding::Failing);
    assert!(bench.served());
    assert_eq!(bench.wake_at, Some(bench.now.wall + seconds(60)));
}

#[test]
fn a_doubt_is_waited_for_like_a_backoff() {
    let doubtful = |row: Row| Row { intent: claimed_row(&[1]).intent, ..row };
    for (until, waits) in [(8, true), (30, false)] {
        let mut bench = Bench::with(expired());
        assert!(bench.ask(0).is_none());
        bench.ends(End::Until(WALL_NOW + seconds(until), Cause::InDoubt), doubtful(expired()));
        if waits {
            assert!(bench.answer(1).is_none());
            assert_eq!(bench.wake_at, Some(WALL_NOW + seconds(until)));
            bench.pass(seconds(until));
            bench.feed(Event::Tick);
            assert_eq!(bench.started, 2);
        } else {
            assert_eq!(unavailable(bench.answer(1)), (seconds(30), Cause::InDoubt));
            assert_eq!(bench.started, 1);
        }
    }
    let mut valid = Bench::with(doubtful(row()));
    valid.ends(End::Until(WALL_NOW + seconds(30), Cause::InDoubt), doubtful(row()));
    assert_eq!(valid.standing(), TokenStanding::InDoubt);
    assert!(valid.served());
}

#[test]
fn a_pause_ends_with_the_token_that_it_was_for() {
    let doubtful = Row { intent: claimed_row(&[1]).intent, ..expired() };
    let mut bench = Bench::with(doubtful.clone());
    bench.ends(End::Until(WALL_NOW + seconds(3_600), Cause::InDoubt), doubtful);
    // The user consents anew, with a token that does not live as long as the doubt would have.
    bench.feed(Event::Row(Some(Arc::new(renewed(&row(), WALL_NOW.minus(seconds(3_000)))))));
    assert_eq!(bench.started, 2);
}

#[test]
fn a_throttled_provider_is_named_as_the_cause() {
    let mut bench = Bench::with(expired());
    bench.ends(End::Until(WALL_NOW + seconds(50), Cause::IdpThrottled), expired());
    assert_eq!(unavailable(bench.ask(0)), (seconds(50), Cause::IdpThrottled));
}

#[test]
fn the_last_token_is_served_until_it_ends_and_then_the_user_must_reconnect() {
    let mut bench = Bench::with(Row { verdict: sample::verdict(VerdictBy::Idp), ..row() });
    assert_eq!(bench.standing(), TokenStanding::ReconnectRequired);
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
    assert_eq!(bench.started, 1, "an attempt writes the verdict; it sends nothing");
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
        row = Row {
            issued_at: WALL_NOW,
            expires: Expires::At(WALL_NOW),
            due_at: Some(WALL_NOW),
            ..renewed(&row, WALL_NOW)
        };
        bench.ends(End::Renewed, row.clone());
    }
    assert_eq!(bench.started, 1);
}

/// A row whose token another process refreshes: it has the lease for 20 s and an intent.
fn refreshed_elsewhere(row: Row) -> Row {
    let claimed = claimed_row(&[1]);
    Row { intent: claimed.intent, lease: claimed.lease, ..row }
}

#[test]
fn callers_wait_for_a_refresh_elsewhere_and_the_row_is_read_again_every_second() {
    let mut bench = Bench::with(expired());
    assert!(bench.ask(0).is_none());
    // The doubt would last for longer than any caller waits.
    let until = WALL_NOW + seconds(155);
    bench.ends(End::Until(until, Cause::InDoubt), refreshed_elsewhere(expired()));
    assert!(bench.answer(1).is_none(), "its end is told");
    // Callers that come meanwhile put nothing off.
    let reads = [500, 500, 500].map(|millis| {
        bench.pass(Duration::from_millis(millis));
        bench.ask(0);
        bench.log.contains(&"read".to_owned())
    });
    assert_eq!(reads, [false, true, false]);
    bench.feed(Event::Row(Some(Arc::new(refreshed_elsewhere(expired())))));
    bench.pass(seconds(1));
    bench.feed(Event::Tick);
    assert_eq!(bench.log, ["read"]);
    // The other process sent nothing, and freed the row: the wait for it is over.
    bench.feed(Event::Row(Some(Arc::new(expired()))));
    assert_eq!((bench.started, bench.answer(1).is_none()), (2, true));
}

#[test]
fn a_rejection_holds_while_the_token_is_refreshed_elsewhere_until_that_fails() {
    let mut bench = Bench::with(row());
    bench.feed(Event::Rejected(row().generation));
    assert_eq!((bench.standing(), bench.started), (TokenStanding::Withdrawn, 1));
    bench.ends(End::Until(WALL_NOW + seconds(20), Cause::InDoubt), refreshed_elsewhere(row()));
    assert_eq!(bench.standing(), TokenStanding::Withdrawn);
    bench.feed(Event::Stale);
    // Its time for a retry has passed already: the failure counts.
    bench.feed(Event::Row(Some(Arc::new(failing(row(), WALL_NOW)))));
    assert_ne!(bench.standing(), TokenStanding::Withdrawn);
}

#[test]
fn a_rejection_during_a_backoff_waits_for_the_retry() {
    let mut bench = Bench::new();
    bench.published = Some(issued(&row()));
    bench.feed(Event::Rejected(row().generation));
    bench.feed(Event::Row(Some(Arc::new(failing(row(), WALL_NOW + seconds(60))))));
    assert_eq!((bench.standing(), bench.started), (TokenStanding::Withdrawn, 0));
    // Heard of once more: nothing has failed since the report.
    bench.feed(Event::Stale);
    bench.feed(Event::Row(Some(Arc::new(failing(row(), WALL_NOW + seconds(60))))));
    assert_eq!(bench.standing(), TokenStanding::Withdrawn);
    bench.pass(seconds(60));
    bench.feed(Event::Tick);
    assert_eq!(bench.started, 1);
}
