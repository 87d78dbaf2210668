use proptest::prelude::*;

use super::*;

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
    Due,
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
        2 => Just(Happening::Due),
    ]
}

/// One of the rows that a store could hold after `row`.
fn next_row(row: &Row, now: WallTime, choice: u8) -> Option<Arc<Row>> {
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
                    let end = match choice / 10 % 4 {
                        0 => End::Renewed,
                        1 => End::Settled,
                        2 => End::Outdated,
                        _ => End::Until(bench.now.wall + seconds(30), Cause::InDoubt),
                    };
                    bench.feed(Event::Ended(end, next));
                }
                Happening::Due => bench.feed(Event::Due(Arc::new(row.clone()))),
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
