use super::*;

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
    assert_eq!(bench.log, ["start ahead"]);
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
    bench.ends(End::Renewed, renewed(&row(), WALL_NOW));
    assert!(bench.answer(1).unwrap().is_ok() && bench.answer(2).unwrap().is_ok());
}

#[test]
fn a_token_that_is_published_before_the_attempt_ends_is_served_at_once() {
    let mut bench = Bench::with(expired());
    assert!(bench.ask(0).is_none());
    bench.published = Some(issued(&renewed(&row(), WALL_NOW)));
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
    bench.ends(End::Renewed, renewed(&row(), WALL_NOW));
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
fn a_refresh_that_the_machine_slept_through_is_done_again() {
    let mut bench = Bench::with(expired());
    assert!(bench.ask(600).is_none());
    let slept_through = renewed(&row(), WALL_NOW);
    bench.pass(seconds(3_605));
    bench.ends(End::Renewed, slept_through.clone());
    assert!(bench.answer(1).is_none(), "{:?}", bench.answer(1));
    assert_eq!(bench.started, 2);
    let second = Row { generation: slept_through.generation.next(), ..renewed(&row(), bench.now.wall) };
    bench.ends(End::Renewed, second.clone());
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), second.generation);
}

#[test]
fn a_new_token_that_is_refused_is_not_too_short() {
    let mut bench = Bench::with(expired());
    assert!(bench.ask(600).is_none());
    let first = renewed(&row(), WALL_NOW.minus(seconds(60)));
    // It is published before its attempt ends, and a resource server refuses it.
    bench.feed(Event::Rejected(first.generation));
    bench.ends(End::Renewed, first.clone());
    assert!(bench.answer(1).is_none(), "{:?}", bench.answer(1));
    assert_eq!(bench.started, 2);
    let second = renewed(&first, WALL_NOW);
    bench.ends(End::Renewed, Row { generation: first.generation.next(), ..second });
    assert_eq!(bench.answer(1).unwrap().unwrap().generation(), first.generation.next());
}
