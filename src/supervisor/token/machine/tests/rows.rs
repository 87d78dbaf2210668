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
fn a_row_that_was_changed_by_an_actor_that_died_is_read_again() {
    let newer = || Row { generation: row().generation.next(), ..row() };
    let mut known = Bench::with(row());
    known.feed(Event::Stale);
    assert_eq!(known.log, ["read"]);
    known.feed(Event::Row(Some(Arc::new(newer()))));
    assert_eq!(known.ask(0).unwrap().unwrap().generation(), newer().generation);

    // What is being read may be from before the change.
    let mut reading = Bench::new();
    reading.feed(Event::Tick);
    reading.feed(Event::Stale);
    assert!(reading.log.is_empty());
    reading.feed(Event::Row(Some(Arc::new(row()))));
    assert_eq!(reading.log, ["read"]);
    reading.feed(Event::Row(Some(Arc::new(newer()))));
    assert_eq!(reading.ask(0).unwrap().unwrap().generation(), newer().generation);
}
