//! Which keys sealed what, and what another key seals again.

use super::*;
use crate::{
    keyring::Field,
    model::{Sealed, Spendable},
    protocol::Resealed,
};

fn keyring(active: &str) -> Keyring {
    let mut keys = [("0000000a", 1), ("0000000b", 2), ("0000000c", 3)];
    keys.sort_by_key(|(id, _)| *id != active);
    Keyring::fixed(&keys, 9)
}

fn sealed(by: &str, key: &TokenKey, field: Field, number: u8) -> Sealed {
    keyring(by).seal(key, field, format!("ts-test-secret-{number}").as_bytes())
}

fn spendable(by: &str, key: &TokenKey, number: u8) -> Spendable {
    Spendable { sealed: sealed(by, key, Field::RefreshToken, number), fingerprint: fingerprint(number) }
}

impl StorePlace {
    async fn connected_by(&self, by: &str, key: &TokenKey, number: u8) -> Row {
        let sealed = ConnectChange {
            key: key.clone(),
            token: Some(spendable(by, key, number)),
            document: sealed(by, key, Field::Document, number),
            ..connect(None, number.wrapping_add(100))
        };
        self.done(key, Change::Connect(Box::new(sealed)), ChangeReply::Done).await
    }

    /// What each key has sealed: rows and revocations.
    async fn used(&self) -> Vec<(String, u64, u64)> {
        let used = self.store.key_use().await.unwrap().into_iter();
        used.map(|used| (used.key.to_string(), used.rows, used.revocations)).collect()
    }

    /// The users of the rows that this key has not sealed in full, in pages of two.
    async fn others(&self, than: &str) -> Vec<String> {
        let (mut users, mut after) = (Vec::new(), RowPosition::default());
        loop {
            let page = self.store.sealed_by_others(than.parse().unwrap(), after, 2).await.unwrap();
            assert!(page.rows.len() <= 2 && page.unreadable == 0);
            users.extend(page.rows.iter().map(|row| row.key.user().to_owned()));
            let Some(next) = page.next else { return users };
            after = next;
        }
    }
}

/// Seals every value of the row with this key.
fn resealing(by: &str, row: &Row) -> Change {
    let again = |(field, from): (Field, &Sealed)| {
        let to = keyring(by).reseal(&row.key, field, from).unwrap()?;
        Some(Resealed { from: from.clone(), to })
    };
    let tokens = row.refresh_tokens().map(|token| (Field::RefreshToken, &token.sealed));
    Change::Reseal(tokens.chain([(Field::Document, &row.document)]).filter_map(again).collect())
}

fn used(key: &str, rows: u64, revocations: u64) -> (String, u64, u64) {
    (key.to_owned(), rows, revocations)
}

pub(super) async fn values_of_other_keys_are_counted_found_and_resealed(place: &mut StorePlace) {
    let (a, b, c) = ("0000000a", "0000000b", "0000000c");
    assert_eq!((place.used().await, place.others(a).await), (vec![], vec![]));
    let keys = ["alice", "bob", "carol", "dave", "erin"].map(key);
    for (key, number) in keys.iter().zip(1..) {
        place.connected_by(if number < 4 { a } else { b }, key, number).await;
    }
    // Alice's row has values of three keys: of its document, its token, and a second response.
    let alice = &keys[0];
    let row = place.row(alice).await.unwrap();
    let claimed = place.done(alice, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    place.clock.advance(LEASE);
    let recovered = place.done(alice, Change::Recover(sample::recover(2, &claimed)), ChangeReply::Done).await;
    let document = || sealed(a, alice, Field::Document, 11);
    let answer = |by, commit: Commit, number| {
        committed(&Commit { token: Some(spendable(by, alice, number)), document: document(), ..commit })
    };
    let late = answer(b, commit(1, &claimed, 11), 11);
    place.done(alice, late, ChangeReply::Resolved(Resolution::Own)).await;
    let twin = answer(c, Commit { epoch: 0, ..commit(2, &recovered, 12) }, 12);
    let full = place.done(alice, twin, ChangeReply::Resolved(Resolution::Alt)).await;
    assert!(full.alt.is_some());
    place.done(&keys[4], disconnecting(true), ChangeReply::Done).await;
    assert_eq!(place.used().await, [used(a, 3, 0), used(b, 3, 1), used(c, 1, 0)]);
    assert_eq!(place.others(a).await, ["alice", "dave", "erin"]);
    assert_eq!(place.others(b).await, ["alice", "bob", "carol"]);
    assert_eq!(place.others(c).await.len(), 5);

    for key in &keys {
        let before = place.row(key).await.unwrap();
        let after = place.done(key, resealing(c, &before), ChangeReply::Done).await;
        assert_eq!((after.generation, after.changed_at), (before.generation, before.changed_at));
        let again = place.done(key, resealing(c, &before), ChangeReply::Done).await;
        assert_eq!(again, after, "a repetition");
        let opened = |token: &Spendable| keyring(c).open(key, Field::RefreshToken, &token.sealed).unwrap();
        assert!(after.refresh_tokens().map(opened).eq(before.refresh_tokens().map(opened)));
    }
    assert_eq!(place.used().await, [used(c, 5, 1)]);
    place.restart().await;
    assert!(place.others(c).await.is_empty());
    // The rows are as they were: the next claim and response fit.
    place.refreshed(&keys[1], 5, 21).await;
}

pub(super) async fn a_restore_finds_a_revocation_that_was_resealed(place: &mut StorePlace) {
    let (a, b) = ("0000000a", "0000000b");
    let (alice, bob) = (key("alice"), key("bob"));
    for (key, number) in [(&alice, 1), (&bob, 2)] {
        place.connected_by(a, key, number).await;
        place.done(key, disconnecting(true), ChangeReply::Done).await;
    }
    let listed = place.store.queued(0, 9).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(place.store.queued(listed[0].id, 9).await.unwrap().len(), 1);
    // With its row, and on its own, as what no row holds any more.
    place.done(&alice, resealing(b, &place.row(&alice).await.unwrap()), ChangeReply::Done).await;
    let resealed = keyring(b).reseal(&bob, Field::RefreshToken, &listed[1].token).unwrap().unwrap();
    for _ in 0..2 {
        place.store.reseal_revocation(&listed[1], resealed.clone()).await.unwrap();
    }
    // The list is from before: what was replaced since stays.
    place.store.reseal_revocation(&listed[0], resealed.clone()).await.unwrap();
    assert_eq!(place.used().await, [used(a, 1, 0), used(b, 1, 2)]);
    // Bob's row follows, and its copy in the queue is the same value: it is not queued twice.
    place.done(&bob, resealing(b, &place.row(&bob).await.unwrap()), ChangeReply::Done).await;
    assert_eq!(place.used().await, [used(b, 2, 2)]);
    for key in [&alice, &bob] {
        place.done(key, Change::Restore, ChangeReply::Done).await;
    }
    assert_eq!(place.used().await, [used(b, 2, 0)]);
}

pub(super) async fn a_reseal_that_races_a_claim_changes_nothing_else(place: &mut StorePlace) {
    let (a, b) = ("0000000a", "0000000b");
    let other = place.another();
    for round in 1..20 {
        let key = key(&format!("user-{round}"));
        let row = place.connected_by(a, &key, round).await;
        let (claimed, resealed) = futures_util::future::join(
            place.store.change(&key, Change::Claim(claim(round, &row))),
            past_conflicts({
                let (other, key, change) = (other.clone(), key.clone(), resealing(b, &row));
                move || other.change(&key, change.clone())
            }),
        )
        .await;
        let (claimed, resealed) = (claimed.unwrap(), resealed.unwrap());
        assert_eq!(claimed.reply, ChangeReply::Done);
        let stored = place.row(&key).await.unwrap();
        // The reseal came first, or found the lease.
        let expected = if resealed.reply == ChangeReply::Done { b } else { a };
        assert!(place.others(expected).await.iter().all(|user| *user != key.user()));
        assert_eq!(
            Row { document: row.document.clone(), refresh_token: row.refresh_token.clone(), ..stored.clone() },
            {
                let claimed = claimed.row.unwrap();
                Row { document: row.document, refresh_token: row.refresh_token, ..claimed }
            }
        );
        place.done(&key, committed(&commit(round, &stored, round + 100)), ChangeReply::Resolved(Resolution::Own)).await;
    }
}
