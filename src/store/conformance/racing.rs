//! Two processes at one store: whatever one of them does between another's read and write, the outcome is that of one after
//! the other. With SQLite, which has one process, both are the same.

use super::*;
use crate::store::past_conflicts;

const ROUNDS: u8 = 12;

/// Two incarnations whose grants have names of their own, also among those of other rounds.
fn incarnations(round: u8) -> [u8; 2] {
    [round, round + 16]
}

/// Carries out a change as the ledger does: again at once after a lost comparison.
fn changing(store: &Arc<dyn Store>, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
    let (store, key) = (store.clone(), key.clone());
    past_conflicts(move || store.change(&key, change.clone()))
}

/// Carries out two changes at a time, one in each process.
async fn both(
    place: &StorePlace,
    other: &Arc<dyn Store>,
    one: (&TokenKey, Change),
    two: (&TokenKey, Change),
) -> (Changed, Changed) {
    let (one, two) = (changing(&place.store, one.0, one.1), changing(other, two.0, two.1));
    let (one, two) = tokio::join!(tokio::spawn(one), tokio::spawn(two));
    (one.unwrap().unwrap(), two.unwrap().unwrap())
}

fn replies((one, two): &(Changed, Changed)) -> [ChangeReply; 2] {
    [one.reply, two.reply]
}

pub(super) async fn writes_to_a_key_take_effect_in_the_order_of_their_requests(place: &mut StorePlace) {
    let keys: Vec<_> = (0..20).map(|number| key(&format!("alice-{number}"))).collect();
    for (key, number) in keys.iter().zip(0..) {
        // Nobody waits for any of them.
        drop(place.store.change(key, connecting(key, Some(number), number)));
        drop(place.store.change(key, Change::Hold { reason: "by hand".to_owned() }));
        drop(place.store.change(key, disconnecting(false)));
        for value in 0..5 {
            drop(place.store.set_meta(&format!("value:{number}"), Some(vec![value])));
        }
    }
    place.restart().await;
    for (key, number) in keys.iter().zip(0..) {
        let row = place.row(key).await.unwrap();
        assert!(row.held.is_some() && row.tombstone.is_some(), "{row:?}");
        assert!(place.store.metas("value:").await.unwrap().contains(&(format!("{number}"), vec![4])));
    }
}

pub(super) async fn a_token_that_two_keys_connect_at_once_is_live_under_one(place: &mut StorePlace) {
    let other = place.another();
    for round in 0..ROUNDS {
        let keys = [key(&format!("alice-{round}")), key(&format!("bob-{round}"))];
        let connect = |side: usize| connecting(&keys[side], Some(round + 1), incarnations(round)[side]);
        let (one, two) = (connect(0), connect(1));
        let changed = both(place, &other, (&keys[0], one), (&keys[1], two)).await;
        let mut replies = replies(&changed);
        replies.sort_by_key(|reply| *reply == ChangeReply::Duplicate);
        assert_eq!(replies, [ChangeReply::Done, ChangeReply::Duplicate], "round {round}");
    }
    assert_eq!(place.store.list(&Names::default(), None, 100).await.unwrap().grants.len(), usize::from(ROUNDS));
}

pub(super) async fn a_token_that_two_providers_connect_at_once_is_live_under_one(place: &mut StorePlace) {
    let other = place.another();
    for round in 0..ROUNDS {
        let [a, b] = ["a", "b"].map(|idp| TokenKey::at(idp).user(format!("alice-{round}")));
        // The fingerprints of one token at the two providers.
        let (at_a, at_b) = (round + 1, round + 101);
        let connect = |key: &TokenKey, own, elsewhere, incarnation| {
            let Change::Connect(mut connect) = connecting(key, Some(own), incarnation) else { panic!("a connect") };
            connect.elsewhere = vec![fingerprint(elsewhere)];
            Change::Connect(connect)
        };
        let [at_one, at_two] = incarnations(round);
        let (one, two) = (connect(&a, at_a, at_b, at_one), connect(&b, at_b, at_a, at_two));
        let changed = both(place, &other, (&a, one), (&b, two)).await;
        let mut replies = replies(&changed);
        replies.sort_by_key(|reply| *reply == ChangeReply::Duplicate);
        assert_eq!(replies, [ChangeReply::Done, ChangeReply::Duplicate], "round {round}");
    }
}

pub(super) async fn a_key_that_is_connected_twice_at_once_has_one_row(place: &mut StorePlace) {
    let other = place.another();
    for round in 0..ROUNDS {
        let key = key(&format!("alice-{round}"));
        let [at_one, at_two] = incarnations(round);
        let (one, two) = (connecting(&key, Some(round), at_one), connecting(&key, Some(round + 100), at_two));
        let changed = both(place, &other, (&key, one), (&key, two)).await;
        assert_eq!(replies(&changed), [ChangeReply::Done; 2]);
        let rows = [changed.0.row.unwrap(), changed.1.row.unwrap()];
        let mut generations = [rows[0].generation.0, rows[1].generation.0];
        generations.sort_unstable();
        assert_eq!(generations, [1, 2]);
        let stored = place.row(&key).await;
        let last = rows.into_iter().find(|row| row.generation.0 == 2);
        assert_eq!(stored, last, "the second connect replaces the first");
    }
}

pub(super) async fn a_public_name_is_given_to_one_grant(place: &mut StorePlace) {
    let other = place.another();
    for round in 0..ROUNDS {
        let keys = [key(&format!("alice-{round}")), key(&format!("bob-{round}"))];
        let [one, two] = [(0, round), (1, round + 100)].map(|(at, token)| connecting(&keys[at], Some(token), round));
        let (one, two) = (changing(&place.store, &keys[0], one), changing(&other, &keys[1], two));
        let (one, two) = tokio::join!(tokio::spawn(one), tokio::spawn(two));
        let stored = [one.unwrap(), two.unwrap()].iter().filter(|changed| changed.is_ok()).count();
        assert_eq!(stored, 1, "round {round}");
    }
}

pub(super) async fn a_token_is_restored_or_connected_elsewhere(place: &mut StorePlace) {
    let other = place.another();
    for round in 0..ROUNDS {
        let [alice, bob] = ["alice", "bob"].map(|user| key(&format!("{user}-{round}")));
        place.connected(&alice, round).await;
        place.done(&alice, disconnecting(false), ChangeReply::Done).await;
        let connect = connecting(&bob, Some(round), round + 116);
        let changed = both(place, &other, (&alice, Change::Restore), (&bob, connect)).await;
        let expected = [[ChangeReply::Done, ChangeReply::Duplicate], [ChangeReply::Refused, ChangeReply::Done]];
        assert!(expected.contains(&replies(&changed)), "round {round}: {:?}", replies(&changed));
    }
}

pub(super) async fn a_token_is_restored_or_revoked(place: &mut StorePlace) {
    let other = place.another();
    for round in 0..ROUNDS {
        let alice = key(&format!("alice-{round}"));
        place.connected(&alice, round).await;
        place.done(&alice, disconnecting(true), ChangeReply::Done).await;
        let queued = place.store.revocations(9).await.unwrap();
        let queued = queued.into_iter().find(|queued| queued.key == alice).unwrap();
        let later = place.now() + seconds(60);
        let restored = changing(&place.store, &alice, Change::Restore);
        let (restored, begun) = tokio::join!(tokio::spawn(restored), tokio::spawn(other.revoking(&queued, later)));
        let (restored, begun) = (restored.unwrap().unwrap().reply, begun.unwrap().unwrap());
        assert!(
            [(ChangeReply::Done, false), (ChangeReply::Refused, true)].contains(&(restored, begun)),
            "round {round}: {restored:?}, revoked: {begun}"
        );
        place.store.revoked(queued.id, None).await.unwrap();
    }
}

/// Two processes claim one row many times: one claim wins. A row that one process knows and the other has changed is read again.
pub(super) async fn a_lost_comparison_is_applied_anew(place: &mut StorePlace) {
    let other = place.another();
    let alice = key("alice");
    let mut row = place.connected(&alice, 1).await;
    for round in 1..=ROUNDS {
        let (one, two) = (Change::Claim(claim(round, &row)), Change::Claim(claim(round + 100, &row)));
        let changed = both(place, &other, (&alice, one), (&alice, two)).await;
        let won = [changed.0.reply, changed.1.reply].map(|reply| reply == ChangeReply::Done);
        assert!(won[0] != won[1], "round {round}: {:?}", replies(&changed));
        let claimed = if won[0] { changed.0.row } else { changed.1.row }.unwrap();
        let attempt = if won[0] { round } else { round + 100 };
        // The process that has not claimed holds the grant: the one that has claimed knows an older row.
        let (winner, loser) = if won[0] { (&place.store, &other) } else { (&other, &place.store) };
        let hold = changing(loser, &alice, Change::Hold { reason: format!("round {round}") });
        let stored = changing(winner, &alice, committed(&commit(attempt, &claimed, round + 1)));
        let (hold, stored) = tokio::join!(tokio::spawn(hold), tokio::spawn(stored));
        assert_eq!(hold.unwrap().unwrap().reply, ChangeReply::Done);
        assert_eq!(stored.unwrap().unwrap().reply, ChangeReply::Resolved(Resolution::Own));
        place.done(&alice, Change::Release, ChangeReply::Done).await;
        row = place.row(&alice).await.unwrap();
        assert_eq!((row.generation, &row.held), (Generation(u64::from(round) + 1), &None));
        assert_eq!(row.refresh_token, Some(token(round + 1)));
    }
}

/// A purge and a connect of one key at a time: generations never fall.
pub(super) async fn a_key_that_is_purged_and_connected_at_once_keeps_its_order(place: &mut StorePlace) {
    let other = place.another();
    let alice = key("alice");
    let mut before = place.connected(&alice, 1).await.generation;
    for round in 2..ROUNDS + 2 {
        place.done(&alice, disconnecting(false), ChangeReply::Done).await;
        let changed =
            both(place, &other, (&alice, Change::Purge), (&alice, connecting(&alice, Some(round), round))).await;
        assert_eq!(changed.1.reply, ChangeReply::Done);
        let row = place.row(&alice).await.unwrap();
        assert!(row.generation > before, "{:?} after {before:?}", row.generation);
        before = row.generation;
    }
}

pub(super) async fn a_store_value_is_swapped_by_one(place: &mut StorePlace) {
    let other = place.another();
    let swap = |store: &Arc<dyn Store>, from: u8, to: u8| store.swap_meta("teller", vec![from], vec![to]);
    assert!(!swap(&place.store, 0, 1).await.unwrap(), "there is none");
    place.store.meta("teller", vec![0]).await.unwrap();
    for round in 0..ROUNDS {
        let (one, two) = (swap(&place.store, round, round + 1), swap(&other, round, round + 1));
        let (one, two) = tokio::join!(tokio::spawn(one), tokio::spawn(two));
        assert!(one.unwrap().unwrap() != two.unwrap().unwrap(), "round {round}");
    }
}
