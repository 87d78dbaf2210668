use std::collections::HashMap;

use super::{
    round::{Confirmed, PROVEN, RecoveryRound, RecoverySight, StoreLoss, StoreMark},
    *,
};
use crate::model::StoreTime;

const OWN: Id = Id([1; 16]);
const OTHER: Id = Id([2; 16]);

fn mark(number: u64, round: Option<u8>, complete: bool) -> StoreMark {
    StoreMark { round: round.map(|round| Id([round; 16])), complete, ..StoreMark::at(number, StoreTime(1_000)) }
}

fn file(number: u64, server: Option<&str>) -> HistoryMark {
    HistoryMark { number, server: server.map(str::to_owned), ..HistoryMark::default() }
}

fn sight(stored: Option<StoreMark>, file: Option<HistoryMark>, server: Option<&str>) -> RecoverySight {
    RecoverySight {
        marks: stored.into_iter().map(|mark| (OWN, mark)).collect(),
        round: None,
        server: server.map(str::to_owned),
        is_elsewhere: false,
        own: OWN,
        owners: vec![OWN],
        files: file.into_iter().map(|file| (OWN, file)).collect(),
    }
}

#[test]
fn a_lower_mark_proves_a_loss_and_another_server_makes_it_possible() {
    let maybe = Some(StoreLoss { proven: false });
    for (what, stored, file, server, expected) in [
        ("nothing was ever marked", None, None, Some("a/1"), None),
        ("the same", Some(5), Some(file(5, Some("a/1"))), Some("a/1"), None),
        ("killed between the two", Some(6), Some(file(5, Some("a/1"))), Some("a/1"), None),
        ("lower", Some(4), Some(file(5, None)), None, Some(PROVEN)),
        ("missing", None, Some(file(5, None)), None, Some(PROVEN)),
        ("another timeline", Some(5), Some(file(5, Some("a/1"))), Some("a/2"), maybe),
        ("a server that does not say", Some(5), Some(file(5, Some("a/1"))), None, None),
        ("both", Some(4), Some(file(5, Some("a/1"))), Some("a/2"), Some(PROVEN)),
    ] {
        let stored = stored.map(|number| mark(number, None, false));
        assert_eq!(sight(stored, file, server).loss(), expected, "{what}");
    }
    let moved = RecoverySight { is_elsewhere: true, ..sight(None, None, Some("a/2")) };
    assert_eq!(moved.loss(), maybe, "a process that has stored nothing saw another server");
}

#[test]
fn a_round_waits_for_every_owner_that_is_not_gone() {
    let round = RecoveryRound { id: Id([9; 16]), since: StoreTime(2_000), proven: true };
    let mut seen = sight(Some(mark(5, Some(9), true)), Some(file(5, None)), None);
    assert_eq!(seen.confirmed(&round, true, &[]), Confirmed { all: true, complete: true });
    seen.marks.insert(OTHER, mark(7, None, false));
    assert_eq!(seen.confirmed(&round, true, &[]), Confirmed { all: false, complete: true });
    assert!(seen.confirmed(&round, false, &[]).all, "no other process can use the store");
    seen.marks.insert(OTHER, mark(7, Some(9), false));
    assert_eq!(seen.confirmed(&round, true, &[]), Confirmed { all: true, complete: false });
    seen.marks = HashMap::from([(OWN, StoreMark { at: StoreTime(200_000_000), ..mark(5, Some(9), true) })]);
    seen.marks.insert(OTHER, mark(7, None, false));
    let later = RecoveryRound { since: StoreTime(300_000_000), ..round.clone() };
    assert!(seen.confirmed(&later, true, &[]).all, "it has written no mark for two days");
    seen.files.insert(OWN, HistoryMark { owners: vec![Id([3; 16])], ..file(5, None) });
    assert!(!seen.confirmed(&round, true, &[]).all, "the folder knows an owner whose mark the store has lost");
    seen = sight(Some(mark(5, Some(9), true)), None, None);
    let lately = |owner: Id| [owner.public("j")];
    assert!(seen.confirmed(&round, true, &lately(OWN)).all);
    assert!(
        !seen.confirmed(&round, true, &lately(OTHER)).all,
        "it was there not long ago, and has not stored anything yet"
    );
    assert!(seen.confirmed(&round, false, &lately(OTHER)).all, "no other process can use the store");
}
