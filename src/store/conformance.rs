//! What every store must do: the same operations, the same answers.
//!
//! A new backend adds one line here: its name and how to get an empty store of it.

mod census;
mod due;
mod listing;
mod replays;
mod revoking;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use census::*;
use due::*;
use futures_util::{FutureExt as _, future::join_all};
use listing::*;
use replays::*;
use revoking::*;

use super::*;
use crate::{
    clock::ManualClock,
    model::{Evidence, Expires, Fingerprint, Generation, Id},
    protocol::{
        Commit, Connect, Disconnect, Happening, Unchanged,
        resolve::Resolution,
        tests::{self as sample, LEASE, claim, commit, committed, connect, ending, fingerprint, id, seconds, token},
    },
};

macro_rules! conformance {
    ($($store:ident = $open:expr;)*) => { $( mod $store {
        use super::*;
        tests_of!($open; [
            what_is_written_is_read_back_after_a_restart,
            every_operation_reads_applies_and_writes,
            what_happened_is_told_with_the_answer_and_not_again,
            a_refused_operation_writes_nothing,
            of_many_claims_exactly_one_wins,
            many_keys_at_once_are_all_written,
            a_dropped_answer_does_not_undo_the_work,
            pages_of_due_keys_come_in_order_and_skip_nothing,
            what_needs_nobody_is_not_due,
            what_ends_soon_comes_in_pages_by_the_time_of_its_notice,
            revocations_are_queued_retried_and_done,
            a_revocation_is_queued_once_however_often_its_answer_lands,
            a_connect_drops_the_revocations_of_its_key_alone,
            a_restore_takes_back_what_was_not_begun_to_be_revoked,
            a_token_that_another_key_holds_by_now_is_not_restored,
            a_replayed_connect_is_recognized,
            a_refresh_token_that_is_live_under_another_key_is_refused,
            a_refresh_token_that_a_disconnected_key_is_spending_is_refused,
            spent_fingerprints_are_forgotten_and_connected_ones_are_not,
            new_rows_start_above_the_generation_floor,
            grants_are_counted_as_they_are,
            grants_are_listed_by_every_name_in_the_order_of_their_bytes,
            a_listed_row_is_the_stored_one_without_its_ciphertext,
            pages_of_keys_skip_and_repeat_nothing_while_rows_come_and_change,
            a_purged_key_starts_above_what_it_was_and_its_replays_bring_nothing_back,
            a_purge_waits_for_what_is_still_to_come,
            values_of_the_store_are_written_once_or_on_purpose,
            values_of_the_store_are_listed_by_their_prefix,
            a_closed_store_says_that_it_is_unavailable,
        ]);
    } )* };
}

macro_rules! tests_of {
    ($open:expr; [$($test:ident,)*]) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            super::$test(&mut $open).await;
        }
    )* };
}

conformance! {
    sqlite = Place::sqlite();
}

type Open = Box<dyn Fn(&Clock) -> Arc<dyn Store> + Send + Sync>;

/// Where a store lives, and the store while it is open.
pub(super) struct Place {
    clock: ManualClock,
    reopen: Open,
    store: Arc<dyn Store>,
}

impl Place {
    fn new(reopen: impl Fn(&Clock) -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        let clock = ManualClock::new(SystemTime::from(sample::NOW));
        let store = reopen(&Clock::manual(&clock));
        Self { clock, reopen: Box::new(reopen), store }
    }

    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::new(move |clock| open(&format!("sqlite://{}", folder.path().join("tokens.db").display()), clock).unwrap())
    }

    async fn restart(&mut self) {
        self.store.close().await.unwrap();
        self.store = (self.reopen)(&Clock::manual(&self.clock));
    }

    fn now(&self) -> Time {
        self.clock.now().into()
    }

    async fn change(&self, key: &TokenKey, change: Change) -> Changed {
        self.store.change(key, change).await.unwrap()
    }

    /// Carries the change out and expects this answer and what follows from it.
    async fn done(&self, key: &TokenKey, change: Change, reply: Reply) -> Row {
        let changed = self.change(key, change).await;
        assert_eq!(changed.reply, reply);
        let row = changed.row.unwrap();
        assert_eq!(self.row(key).await.as_ref(), Some(&row), "the answer is what is stored");
        row
    }

    async fn row(&self, key: &TokenKey) -> Option<Row> {
        self.store.read(key).await.unwrap().row
    }

    async fn connected(&self, key: &TokenKey, number: u8) -> Row {
        self.done(key, connecting(key, Some(number), number.wrapping_add(100)), Reply::Done).await
    }

    /// One refresh: `new` for what is stored.
    async fn refreshed(&self, key: &TokenKey, attempt: u8, new: u8) -> Row {
        let row = self.row(key).await.unwrap();
        let claimed = self.done(key, Change::Claim(claim(attempt, &row)), Reply::Done).await;
        self.done(key, committed(&commit(attempt, &claimed, new)), Reply::Resolved(Resolution::Own)).await
    }

    async fn due(&self, by: Time) -> Vec<String> {
        let page = self.store.due(by, None, 1_000).await.unwrap();
        page.keys.iter().map(|key| key.user().to_owned()).collect()
    }
}

fn key(user: &str) -> TokenKey {
    TokenKey::at("idp").user(user)
}

fn connecting(key: &TokenKey, new: Option<u8>, incarnation: u8) -> Change {
    Change::Connect(Box::new(Connect { key: key.clone(), ..connect(new, incarnation) }))
}

/// A connect of the `number`-th of many keys, due at `due`.
fn nth(number: u32, due: Time) -> (TokenKey, Change) {
    let key = key(&format!("user-{number:05}"));
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    let mut token = token(1);
    token.fingerprint = Fingerprint(bytes);
    let connect = Connect {
        key: key.clone(),
        incarnation: Id::random(),
        token: Some(token),
        due_at: Some(due),
        ..connect(None, 1)
    };
    (key, Change::Connect(Box::new(connect)))
}

async fn what_is_written_is_read_back_after_a_restart(place: &mut Place) {
    // Unusual names: separators, other scripts, an account.
    let key = TokenKey::at("idp").user("a:b/c%20'; -- \u{e4}\u{1f511}").account("work account");
    let connect = Connect { expires: Expires::Unknown, due_at: None, client_id: None, ..connect(Some(1), 101) };
    let mut rows =
        vec![place.done(&key, Change::Connect(Box::new(Connect { key: key.clone(), ..connect })), Reply::Done).await];
    place.restart().await;
    assert_eq!(place.row(&key).await.as_ref(), rows.last());

    // One operation after the other fills every column.
    let row = rows.remove(0);
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), Reply::Done).await;
    place.clock.advance(LEASE);
    let recovered = place.done(&key, Change::Recover(sample::recover(2, &claimed)), Reply::Done).await;
    let late = commit(1, &claimed, 2);
    let stored = place.done(&key, committed(&late), Reply::Resolved(Resolution::Own)).await;
    assert!(stored.intent.is_some() && stored.lease.is_some() && stored.commit.is_some());
    let twin = Commit { epoch: 0, ..commit(2, &recovered, 3) };
    let beside = place.done(&key, committed(&twin), Reply::Resolved(Resolution::Alt)).await;
    assert!(beside.alt.is_some());
    let claimed = place.done(&key, Change::Claim(claim(3, &beside)), Reply::Done).await;
    let mut end = ending(3, &claimed);
    let cause = crate::error::Cause::IdpThrottled;
    end.error = Some(crate::protocol::Fault { evidence: Evidence::of("slow_down"), cause });
    end.retry_at = Some(place.now() + seconds(60));
    let failed = place.done(&key, Change::Close(end), Reply::Done).await;
    assert!(failed.last_error.is_some() && failed.retry_at.is_some() && failed.intent.is_some());
    let sticky = Change::RequireReconnect { reason: "left the company".to_owned() };
    let refused = place.done(&key, sticky, Reply::Done).await;
    let held = place.done(&key, Change::Hold { reason: "by hand".to_owned() }, Reply::Done).await;
    let gone = place.done(&key, Change::Disconnect(Disconnect { revoke: true, purge: false }), Reply::Done).await;
    assert!(refused.verdict.is_some() && held.held.is_some() && gone.tombstone.is_some());
    for _ in 0..2 {
        assert_eq!(place.row(&key).await, Some(gone.clone()));
        place.restart().await;
    }
}

async fn every_operation_reads_applies_and_writes(place: &mut Place) {
    let key = key("alice");
    let row = place.connected(&key, 1).await;
    assert_eq!((row.generation, row.changed_at), (Generation(1), place.now()));
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), Reply::Done).await;
    place.clock.advance(seconds(20));
    let renewed = place.done(&key, Change::Renew { attempt: id(1), lease: LEASE }, Reply::Done).await;
    assert_eq!(renewed.lease.unwrap().until, place.now() + LEASE);
    let free = place.done(&key, Change::Cancel(ending(1, &claimed)), Reply::Done).await;
    assert_eq!((free.intent, free.lease), (None, None));

    let row = place.refreshed(&key, 2, 2).await;
    assert_eq!((row.generation, row.refresh_token), (Generation(2), Some(token(2))));
    let again = Commit { parent: fingerprint(1), ..commit(2, &claimed, 2) };
    place.done(&key, committed(&again), Reply::Resolved(Resolution::Own)).await;

    let raise = Change::Raise { incarnation: row.incarnation, seen: Generation(9), unknown: id(9) };
    let raised = place.done(&key, raise.clone(), Reply::Done).await;
    place.done(&key, raise, Reply::Refused).await;
    let give_up = Change::GiveUp { incarnation: row.incarnation, intent: raised.intent.unwrap() };
    assert!(place.done(&key, give_up, Reply::Done).await.verdict.is_some());
    let row = place.connected(&key, 3).await;
    assert_eq!((row.generation, &row.verdict), (Generation(10), &None));

    let claimed = place.done(&key, Change::Claim(claim(4, &row)), Reply::Done).await;
    let refused = place.done(&key, sample::refuse(4, &claimed), Reply::Done).await;
    assert_eq!(refused.verdict.unwrap().evidence.code, "invalid_grant");
    place.connected(&key, 3).await;

    let claimed = place.done(&key, Change::Claim(claim(5, &row)), Reply::Done).await;
    let gone = place.done(&key, Change::Disconnect(Disconnect { revoke: true, purge: false }), Reply::Done).await;
    assert!(place.store.revocations(10).await.unwrap().is_empty(), "the token is being spent");
    let clear = Change::Clear { incarnation: row.incarnation, intent: claimed.intent.unwrap() };
    let cleared = place.done(&key, clear, Reply::Done).await;
    assert_eq!((cleared.intent, cleared.generation), (None, gone.generation));
    assert_eq!(place.store.revocations(10).await.unwrap().len(), 1);
}

async fn what_happened_is_told_with_the_answer_and_not_again(place: &mut Place) {
    let key = key("alice");
    let row = place.connected(&key, 1).await;
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), Reply::Done).await;
    let answer = committed(&commit(1, &claimed, 2));
    for expected in [vec![Happening::Renewed { generation: Generation(2) }], vec![]] {
        assert_eq!(place.change(&key, answer.clone()).await.happened, expected);
    }
}

async fn a_refused_operation_writes_nothing(place: &mut Place) {
    let nobody = place.change(&key("nobody"), Change::RequireReconnect { reason: "left".to_owned() }).await;
    assert_eq!((nobody.reply, nobody.row), (Reply::Refused, None));
    assert_eq!(place.row(&key("nobody")).await, None);

    let row = place.connected(&key("alice"), 1).await;
    let mut stale = claim(1, &row);
    stale.generation = Generation(7);
    let refused = place.done(&key("alice"), Change::Claim(stale), Reply::Refused).await;
    assert_eq!(refused, row);

    let held = place.done(&key("alice"), Change::Hold { reason: "by hand".to_owned() }, Reply::Done).await;
    let refused = place.done(&key("alice"), Change::Claim(claim(1, &row)), Reply::Refused).await;
    assert_eq!(refused, held);
    assert_eq!(place.done(&key("alice"), Change::Release, Reply::Done).await, row);
}

async fn of_many_claims_exactly_one_wins(place: &mut Place) {
    let key = key("alice");
    for round in 0..5 {
        let row = place.connected(&key, round + 1).await;
        let claims = (0..32).map(|attempt| {
            let (store, key, change) = (place.store.clone(), key.clone(), Change::Claim(claim(attempt, &row)));
            tokio::spawn(async move { (attempt, store.change(&key, change).await.unwrap()) })
        });
        let answers: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<_> = answers.iter().filter(|(_, changed)| changed.reply == Reply::Done).collect();
        assert_eq!(won.len(), 1);
        let winner = id(won[0].0);
        for (_, changed) in &answers {
            let row = changed.row.as_ref().unwrap();
            let holder = row.lease.map(|lease| lease.attempt);
            assert!(holder == Some(winner), "everybody is told who holds the lease");
        }
    }
}

async fn many_keys_at_once_are_all_written(place: &mut Place) {
    let all: Vec<_> = (0..400).map(|number| nth(number, place.now())).collect();
    let changes = all.iter().map(|(key, change)| {
        let (store, key, change) = (place.store.clone(), key.clone(), change.clone());
        tokio::spawn(async move { store.change(&key, change).await })
    });
    for changed in join_all(changes).await {
        assert_eq!(changed.unwrap().unwrap().reply, Reply::Done);
    }
    place.restart().await;
    for (key, _) in &all {
        assert!(place.row(key).await.is_some());
    }
}

async fn a_dropped_answer_does_not_undo_the_work(place: &mut Place) {
    let all: Vec<_> = (0..50).map(|number| nth(number, place.now())).collect();
    for (number, (key, change)) in all.iter().enumerate() {
        let mut answer = place.store.change(key, change.clone());
        if number % 2 == 0 {
            // Polled once or never, then dropped.
            assert!(answer.as_mut().now_or_never().is_none_or(|answer| answer.is_ok()));
        }
    }
    place.restart().await;
    for (key, _) in &all {
        assert!(place.row(key).await.is_some());
    }
}

async fn new_rows_start_above_the_generation_floor(place: &mut Place) {
    let floor = place.store.meta("generation_floor", 41_u64.to_le_bytes().to_vec()).await.unwrap();
    assert_eq!(floor, 41_u64.to_le_bytes());
    assert_eq!(place.connected(&key("alice"), 1).await.generation, Generation(42));
    assert_eq!(place.refreshed(&key("alice"), 1, 2).await.generation, Generation(43));
}

async fn values_of_the_store_are_written_once_or_on_purpose(place: &mut Place) {
    for (given, kept) in [(b"first".to_vec(), b"first"), (b"other".to_vec(), b"first")] {
        assert_eq!(place.store.meta("store_id", given).await.unwrap(), kept);
        place.restart().await;
    }
    for name in ["store_id", "another"] {
        place.store.set_meta(name, Some(b"set".to_vec())).await.unwrap();
        assert_eq!(place.store.meta(name, b"other".to_vec()).await.unwrap(), b"set");
    }
}

async fn values_of_the_store_are_listed_by_their_prefix(place: &mut Place) {
    let set = |place: &Place, name: &str, value: Option<&str>| {
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

async fn a_closed_store_says_that_it_is_unavailable(place: &mut Place) {
    let (key, change) = nth(1, place.now());
    place.done(&key, change.clone(), Reply::Done).await;
    place.store.close().await.unwrap();
    place.store.close().await.unwrap();
    let unavailable = |error| matches!(error, StoreError::Unavailable(_));
    assert!(unavailable(place.store.read(&key).await.unwrap_err()));
    assert!(unavailable(place.store.change(&key, change).await.unwrap_err()));
    assert!(unavailable(place.store.due(place.now(), None, 1).await.unwrap_err()));
}
