use super::*;

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
fn an_older_row_does_not_replace_a_newer_one() {
    let newer = renewed(&row(), WALL_NOW);
    let mut bench = Bench::with(newer.clone());
    bench.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(bench.ask(0).unwrap().unwrap().generation(), newer.generation);
    assert_eq!(bench.machine.row().unwrap().generation, newer.generation);
}

#[test]
fn an_unreadable_row_is_said_to_be_and_read_again_when_somebody_asks() {
    let mut bench = Bench::new();
    assert!(bench.ask(0).is_none());
    bench.feed(Event::RefreshNow(1));
    bench.feed(Event::Unreadable);
    assert_eq!(unavailable(bench.answer(1)).1, Cause::StoreDown);
    assert!(matches!(bench.refreshed[0], (1, Err(Error::Unavailable { cause: Cause::StoreDown, .. }))));
    assert_eq!(bench.log, ["stop"], "it does not read in circles");
}

#[test]
fn it_stops_when_nothing_happens_and_a_moment_after_the_last_request() {
    let mut bench = Bench::with(row());
    assert!(bench.served() && bench.log.is_empty());
    assert_eq!(bench.wake_at, Some(WALL_NOW + LINGER));
    bench.pass(LINGER);
    bench.feed(Event::Tick);
    assert_eq!(bench.log, ["stop"]);
    assert!(bench.machine.is_stopping());
    bench.feed(Event::Tick);
    assert!(bench.log.is_empty());

    let mut unasked = Bench::new();
    unasked.feed(Event::Tick);
    unasked.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(unasked.log, ["stop"]);

    let mut busy = Bench::with(expired());
    busy.pass(LINGER);
    busy.feed(Event::Tick);
    assert!(busy.log.is_empty());
    busy.ends(End::Renewed, renewed(&row(), busy.now.wall));
    assert_eq!(busy.log, ["stop"]);
}

#[test]
fn it_stays_while_what_it_knows_is_not_in_the_row_or_the_row_would_be_due_at_once() {
    let stays = |bench: &mut Bench| {
        bench.pass(LINGER);
        bench.feed(Event::Tick);
        (!bench.log.contains(&"stop".to_owned())).then(|| bench.wake_at.unwrap().since(bench.now.wall).as_secs())
    };
    let lately = Row { commit: renewed(&row(), WALL_NOW).commit, ..row() };
    let mut rejected = Bench::with(lately);
    rejected.feed(Event::Rejected(row().generation));
    assert_eq!(stays(&mut rejected), Some(59));

    let mut doubted = Bench::with(Row { intent: claimed_row(&[1]).intent, ..row() });
    assert_eq!(doubted.started, 1);
    doubted.feed(Event::Ended(End::Until(WALL_NOW + seconds(30), Cause::InDoubt), doubted.machine.row().cloned()));
    assert_eq!(stays(&mut doubted), Some(29));

    assert_eq!(stays(&mut Bench::with(failing(expired(), WALL_NOW + seconds(9)))), Some(8));
    let mut in_time = failing(row(), WALL_NOW + seconds(9));
    assert_eq!(stays(&mut Bench::with(in_time.clone())), None, "it is not due before the next refresh");
    in_time.held = Some("by hand".to_owned());
    assert_eq!(stays(&mut Bench::with(in_time)), None);
}

#[test]
fn a_row_of_the_sweeper_is_refreshed_without_a_read_and_answers_nobody() {
    let mut bench = Bench::new();
    bench.feed(Event::Due(Arc::new(expired())));
    assert_eq!(bench.log, ["start ahead"]);
    assert!(bench.ask(0).is_none());
    assert_eq!(bench.log, ["read", "hurry"].map(str::to_owned)[..1], "the page may be from before a change");
    bench.ends(End::Renewed, renewed(&expired(), bench.now.wall));
    assert!(bench.answer(1).unwrap().is_ok());

    let mut unasked = Bench::new();
    unasked.feed(Event::Due(Arc::new(expired())));
    unasked.ends(End::Renewed, renewed(&expired(), unasked.now.wall));
    assert_eq!(unasked.log, ["stop"]);

    let mut unchanged = Bench::new();
    unchanged.feed(Event::Due(Arc::new(expired())));
    unchanged.ends(End::Settled, expired());
    assert!(unchanged.log.is_empty() && unchanged.started == 1, "it does not run in circles");

    let mut too_late = Bench::new();
    too_late.feed(Event::Due(Arc::new(row())));
    assert_eq!(too_late.log, ["stop"]);
    let mut known = Bench::with(row());
    known.feed(Event::Due(Arc::new(expired())));
    assert!(known.log.is_empty(), "it knows better");
}

#[test]
fn an_end_with_a_row_from_before_a_required_reconnect_does_not_hide_it() {
    let mut bench = Bench::with(expired());
    assert_eq!(bench.started, 1);
    let required = Row { verdict: sample::verdict(VerdictBy::Application), ..expired() };
    bench.feed(Event::Row(Some(Arc::new(required.clone()))));
    bench.ends(End::Settled, expired());
    assert_eq!(bench.log, ["read"]);
    bench.feed(Event::Row(Some(Arc::new(required))));
    assert!(matches!(bench.ask(0), Some(Err(Error::ReconnectRequired { .. }))));
}

#[test]
fn an_attempt_that_was_started_for_an_old_row_is_followed_at_once_by_one_for_the_stored_row() {
    let newer = || Row { generation: expired().generation.next(), ..expired() };
    // The row that was stored meanwhile comes before the end of the attempt, with it, or is of another incarnation.
    for known in [Some(newer()), None] {
        let mut bench = Bench::with(expired());
        assert!(bench.ask(0).is_none());
        known.into_iter().for_each(|row| bench.feed(Event::Row(Some(Arc::new(row)))));
        bench.ends(End::Outdated, newer());
        assert_eq!((bench.started, bench.log.last().map(String::as_str)), (2, Some("start")));
        // That one changed nothing, and nothing says why.
        bench.ends(End::Settled, newer());
        assert_eq!(bench.started, 2);
    }
    let mut bench = Bench::with(newer());
    bench.ends(End::Outdated, Row { incarnation: sample::id(101), ..expired() });
    assert_eq!(bench.log, ["read"]);
}

#[test]
fn a_row_that_was_changed_by_an_actor_that_died_is_read_again() {
    let newer = || Row { generation: row().generation.next(), ..row() };
    let mut known = Bench::with(row());
    known.feed(Event::Stale);
    assert_eq!(known.log, ["read"]);
    known.feed(Event::Row(Some(Arc::new(newer()))));
    assert_eq!(known.ask(0).unwrap().unwrap().generation(), newer().generation);

    // What is being read may be from before the change.
    let mut reading = Bench::new();
    reading.machine.touch(reading.now);
    reading.feed(Event::Tick);
    reading.feed(Event::Stale);
    assert!(reading.log.is_empty());
    reading.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(reading.log, ["read"]);
    reading.feed(Event::Row(Some(Arc::new(newer()))));
    assert_eq!(reading.ask(0).unwrap().unwrap().generation(), newer().generation);
}
