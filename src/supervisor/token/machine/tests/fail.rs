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
