//! The conformance suite: every backend must pass the same tests.
//!
//! To add a backend, add a `conformance!` with its name and an expression that creates an empty store, where it can.

mod census;
mod due;
mod listing;
mod place;
mod racing;
mod replays;
mod resealing;
mod revoking;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use census::*;
use due::*;
use futures_util::{FutureExt as _, future::join_all};
use listing::*;
use place::StorePlace;
use racing::*;
use replays::*;
use resealing::*;
use revoking::*;

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    keyring::Keyring,
    model::{Evidence, Expires, Fingerprint, Generation, Id},
    protocol::{
        Commit, ConnectChange, Transition, Unchanged,
        resolve::Resolution,
        tests::{
            self as sample, LEASE, claim, commit, committed, connect, disconnecting, ending, fingerprint, id, seconds,
            token,
        },
    },
};

macro_rules! conformance {
    ($($store:ident = $open:expr;)*) => { $( mod $store {
        use super::*;
        tests_of!($open; [
            every_column_is_read_back_after_a_restart,
            every_operation_reads_applies_and_writes,
            a_change_returns_its_events_once,
            a_refused_operation_writes_nothing,
            of_many_claims_exactly_one_wins,
            many_keys_at_once_are_all_written,
            a_dropped_future_does_not_undo_the_change,
            writes_to_a_key_take_effect_in_the_order_of_their_requests,
            pages_of_due_rows_come_in_order_and_skip_nothing,
            rows_that_need_no_attention_are_not_due,
            expiring_grants_come_in_pages_by_the_time_of_their_notice,
            revocations_are_queued_retried_and_done,
            a_revocation_is_queued_once_however_often_its_response_is_committed,
            a_connect_drops_only_the_revocations_of_its_key,
            a_restore_cancels_revocations_that_were_not_begun,
            a_token_that_another_key_now_holds_is_not_restored,
            values_of_other_keys_are_counted_found_and_resealed,
            a_restore_finds_a_revocation_that_was_resealed,
            a_reseal_that_races_a_claim_changes_nothing_else,
            a_replayed_connect_is_recognized,
            the_newest_connects_are_recognized_however_many_there_were,
            a_refresh_token_that_is_live_under_another_key_is_refused,
            a_refresh_token_that_a_disconnected_key_is_spending_is_refused,
            the_newest_spent_tokens_are_recognized_however_many_there_were,
            a_token_that_comes_back_is_not_spent,
            new_rows_start_above_the_generation_floor,
            the_census_counts_the_listed_grants,
            grants_are_filtered_by_every_name_and_ordered_by_bytes,
            a_listed_row_is_the_stored_one_without_its_ciphertext,
            pages_of_keys_skip_and_repeat_nothing_while_rows_come_and_change,
            a_purged_key_keeps_its_generation_floor_and_its_fingerprints,
            a_purge_waits_for_doubts_and_revocations,
            a_store_value_is_overwritten_only_explicitly,
            store_values_are_listed_by_prefix,
            a_closed_store_is_unavailable,
            a_token_that_two_keys_connect_at_once_is_live_under_one,
            a_token_that_two_providers_connect_at_once_is_live_under_one,
            a_key_that_is_connected_twice_at_once_has_one_row,
            a_public_name_is_given_to_one_grant,
            a_token_is_restored_or_connected_elsewhere,
            a_token_is_restored_or_revoked,
            a_lost_comparison_is_applied_anew,
            a_key_that_is_purged_and_connected_at_once_keeps_its_order,
            a_store_value_is_swapped_by_one,
        ]);
    } )* };
}

macro_rules! tests_of {
    ($open:expr; [$($test:ident,)*]) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            // What is not on this machine is named, and skipped.
            if let Some(mut place) = $open {
                super::$test(&mut place).await;
            }
        }
    )* };
}

#[cfg(feature = "sqlite")]
conformance! {
    sqlite = Some(StorePlace::sqlite());
}

#[cfg(feature = "postgres")]
conformance! {
    postgres = StorePlace::postgres();
}

fn key(user: &str) -> TokenKey {
    TokenKey::at("idp").user(user)
}

fn connecting(key: &TokenKey, new: Option<u8>, incarnation: u8) -> Change {
    Change::Connect(Box::new(ConnectChange { key: key.clone(), ..connect(new, incarnation) }))
}

/// Returns a connect of the `number`-th of many keys, due at `due`.
fn nth(number: u32, due: WallTime) -> (TokenKey, Change) {
    let key = key(&format!("user-{number:05}"));
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    let mut token = token(1);
    token.fingerprint = Fingerprint(bytes);
    let connect = ConnectChange {
        key: key.clone(),
        incarnation: Id::random(),
        token: Some(token),
        due_at: Some(due),
        ..connect(None, 1)
    };
    (key, Change::Connect(Box::new(connect)))
}

async fn every_column_is_read_back_after_a_restart(place: &mut StorePlace) {
    // The names contain separators and other scripts, and there is an account.
    let key = TokenKey::at("idp").user("a:b/c%20'; -- \u{e4}\u{1f511}").account("work account");
    let connect = ConnectChange { expires: Expires::Unknown, due_at: None, client_id: None, ..connect(Some(1), 101) };
    let mut rows = vec![
        place
            .done(&key, Change::Connect(Box::new(ConnectChange { key: key.clone(), ..connect })), ChangeReply::Done)
            .await,
    ];
    place.restart().await;
    assert_eq!(place.row(&key).await.as_ref(), rows.last());

    // Together, these operations fill every column.
    let row = rows.remove(0);
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    place.clock.advance(LEASE);
    let recovered = place.done(&key, Change::Recover(sample::recover(2, &claimed)), ChangeReply::Done).await;
    let late = commit(1, &claimed, 2);
    let stored = place.done(&key, committed(&late), ChangeReply::Resolved(Resolution::Own)).await;
    assert!(stored.intent.is_some() && stored.lease.is_some() && stored.commit.is_some());
    let twin = Commit { epoch: 0, ..commit(2, &recovered, 3) };
    let beside = place.done(&key, committed(&twin), ChangeReply::Resolved(Resolution::Alt)).await;
    assert!(beside.alt.is_some());
    let claimed = place.done(&key, Change::Claim(claim(3, &beside)), ChangeReply::Done).await;
    let mut end = ending(3, &claimed);
    let cause = crate::error::Cause::IdpThrottled;
    end.error = Some(crate::protocol::AttemptFault { evidence: Evidence::of("slow_down"), cause });
    end.retry_at = Some(place.wall() + seconds(60));
    let failed = place.done(&key, Change::Close(end), ChangeReply::Done).await;
    assert!(failed.last_error.is_some() && failed.retry_at.is_some() && failed.intent.is_some());
    let sticky = Change::RequireReconnect { reason: "left the company".to_owned() };
    let refused = place.done(&key, sticky, ChangeReply::Done).await;
    let held = place.done(&key, Change::Hold { reason: "by hand".to_owned() }, ChangeReply::Done).await;
    let gone = place.done(&key, disconnecting(true), ChangeReply::Done).await;
    assert!(refused.verdict.is_some() && held.held.is_some() && gone.tombstone.is_some());
    for _ in 0..2 {
        assert_eq!(place.row(&key).await, Some(gone.clone()));
        place.restart().await;
    }
}

async fn every_operation_reads_applies_and_writes(place: &mut StorePlace) {
    let key = key("alice");
    let row = place.connected(&key, 1).await;
    assert_eq!((row.generation, row.changed_at), (Generation(1), place.now()));
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    place.clock.advance(seconds(20));
    let renewed = place.done(&key, Change::Renew { attempt: id(1), lease: LEASE }, ChangeReply::Done).await;
    assert_eq!(renewed.lease.unwrap().until, place.now() + LEASE);
    let free = place.done(&key, Change::Cancel(ending(1, &claimed)), ChangeReply::Done).await;
    assert_eq!((free.intent, free.lease), (None, None));

    let row = place.refreshed(&key, 2, 2).await;
    assert_eq!((row.generation, row.refresh_token), (Generation(2), Some(token(2))));
    let again = Commit { parent: fingerprint(1), ..commit(2, &claimed, 2) };
    place.done(&key, committed(&again), ChangeReply::Resolved(Resolution::Own)).await;

    let raise = Change::Raise { incarnation: row.incarnation, seen: Generation(9), unknown: id(9) };
    let raised = place.done(&key, raise.clone(), ChangeReply::Done).await;
    place.done(&key, raise, ChangeReply::Refused).await;
    let give_up = Change::GiveUp { incarnation: row.incarnation, intent: raised.intent.unwrap() };
    assert!(place.done(&key, give_up, ChangeReply::Done).await.verdict.is_some());
    let row = place.connected(&key, 3).await;
    assert_eq!((row.generation, &row.verdict), (Generation(10), &None));

    let claimed = place.done(&key, Change::Claim(claim(4, &row)), ChangeReply::Done).await;
    let refused = place.done(&key, sample::refuse(4, &claimed), ChangeReply::Done).await;
    assert_eq!(refused.verdict.unwrap().evidence.code, "invalid_grant");
    place.connected(&key, 3).await;

    let claimed = place.done(&key, Change::Claim(claim(5, &row)), ChangeReply::Done).await;
    let gone = place.done(&key, disconnecting(true), ChangeReply::Done).await;
    assert!(place.store.revocations(10).await.unwrap().is_empty(), "the token is being spent");
    let clear = Change::Clear { incarnation: row.incarnation, intent: claimed.intent.unwrap() };
    let cleared = place.done(&key, clear, ChangeReply::Done).await;
    assert_eq!((cleared.intent, cleared.generation), (None, gone.generation));
    assert_eq!(place.store.revocations(10).await.unwrap().len(), 1);
}

async fn a_change_returns_its_events_once(place: &mut StorePlace) {
    let key = key("alice");
    let row = place.connected(&key, 1).await;
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    let answer = committed(&commit(1, &claimed, 2));
    for expected in [vec![Transition::Renewed { generation: Generation(2) }], vec![]] {
        assert_eq!(place.change(&key, answer.clone()).await.transitions, expected);
    }
}

async fn a_refused_operation_writes_nothing(place: &mut StorePlace) {
    let nobody = place.change(&key("nobody"), Change::RequireReconnect { reason: "left".to_owned() }).await;
    assert_eq!((nobody.reply, nobody.row), (ChangeReply::Refused, None));
    assert_eq!(place.row(&key("nobody")).await, None);

    let row = place.connected(&key("alice"), 1).await;
    let mut stale = claim(1, &row);
    stale.generation = Generation(7);
    let refused = place.done(&key("alice"), Change::Claim(stale), ChangeReply::Refused).await;
    assert_eq!(refused, row);

    let held = place.done(&key("alice"), Change::Hold { reason: "by hand".to_owned() }, ChangeReply::Done).await;
    let refused = place.done(&key("alice"), Change::Claim(claim(1, &row)), ChangeReply::Refused).await;
    assert_eq!(refused, held);
    assert_eq!(place.done(&key("alice"), Change::Release, ChangeReply::Done).await, row);
}

async fn of_many_claims_exactly_one_wins(place: &mut StorePlace) {
    let key = key("alice");
    for round in 0..5 {
        let row = place.connected(&key, round + 1).await;
        let claims = (0..32).map(|attempt| {
            let (store, key, change) = (place.store.clone(), key.clone(), Change::Claim(claim(attempt, &row)));
            tokio::spawn(async move { (attempt, store.change(&key, change).await.unwrap()) })
        });
        let answers: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<_> = answers.iter().filter(|(_, changed)| changed.reply == ChangeReply::Done).collect();
        assert_eq!(won.len(), 1);
        let winner = id(won[0].0);
        for (_, changed) in &answers {
            let row = changed.row.as_ref().unwrap();
            let holder = row.lease.map(|lease| lease.attempt);
            assert!(holder == Some(winner), "every claim returns the holder of the lease");
        }
    }
}

async fn many_keys_at_once_are_all_written(place: &mut StorePlace) {
    let all: Vec<_> = (0..400).map(|number| nth(number, place.wall())).collect();
    let changes = all.iter().map(|(key, change)| {
        let (store, key, change) = (place.store.clone(), key.clone(), change.clone());
        tokio::spawn(async move { store.change(&key, change).await })
    });
    for changed in join_all(changes).await {
        assert_eq!(changed.unwrap().unwrap().reply, ChangeReply::Done);
    }
    place.restart().await;
    for (key, _) in &all {
        assert!(place.row(key).await.is_some());
    }
}

async fn a_dropped_future_does_not_undo_the_change(place: &mut StorePlace) {
    let all: Vec<_> = (0..50).map(|number| nth(number, place.wall())).collect();
    for (number, (key, change)) in all.iter().enumerate() {
        let mut changed = place.store.change(key, change.clone());
        if number % 2 == 0 {
            // Every second future is polled once, the others never; then all are dropped.
            assert!(changed.as_mut().now_or_never().is_none_or(|changed| changed.is_ok()));
        }
    }
    place.restart().await;
    for (key, _) in &all {
        assert!(place.row(key).await.is_some());
    }
}

async fn new_rows_start_above_the_generation_floor(place: &mut StorePlace) {
    let floor = place.store.meta("generation_floor", 41_u64.to_le_bytes().to_vec()).await.unwrap();
    assert_eq!(floor, 41_u64.to_le_bytes());
    assert_eq!(place.connected(&key("alice"), 1).await.generation, Generation(42));
    assert_eq!(place.refreshed(&key("alice"), 1, 2).await.generation, Generation(43));
}

async fn a_store_value_is_overwritten_only_explicitly(place: &mut StorePlace) {
    for (given, kept) in [(b"first".to_vec(), b"first"), (b"other".to_vec(), b"first")] {
        assert_eq!(place.store.meta("store_id", given).await.unwrap(), kept);
        place.restart().await;
    }
    for name in ["store_id", "another"] {
        place.store.set_meta(name, Some(b"set".to_vec())).await.unwrap();
        assert_eq!(place.store.meta(name, b"other".to_vec()).await.unwrap(), b"set");
    }
}

async fn store_values_are_listed_by_prefix(place: &mut StorePlace) {
    let set = |place: &StorePlace, name: &str, value: Option<&str>| {
        place.store.set_meta(name, value.map(|value| value.as_bytes().to_vec()))
    };
    for (name, value) in [("held:b", "first"), ("held:a", "x"), ("held", "y"), ("helm:c", "z"), ("held:b", "second")] {
        set(place, name, Some(value)).await.unwrap();
    }
    set(place, "held:a", None).await.unwrap();
    set(place, "held:nobody", None).await.unwrap();
    place.restart().await;
    assert_eq!(place.store.metas("held:").await.unwrap(), [("b".to_owned(), b"second".to_vec())]);
    assert_eq!(place.store.metas("hell").await.unwrap(), []);
}

async fn a_closed_store_is_unavailable(place: &mut StorePlace) {
    let (key, change) = nth(1, place.wall());
    place.done(&key, change.clone(), ChangeReply::Done).await;
    place.store.close().await.unwrap();
    place.store.close().await.unwrap();
    let unavailable = |error| matches!(error, StoreError::Unavailable(_));
    assert!(unavailable(place.store.read(&key).await.unwrap_err()));
    assert!(unavailable(place.store.change(&key, change).await.unwrap_err()));
    assert!(unavailable(place.store.due("idp", place.wall(), None, 1).await.unwrap_err()));
}
