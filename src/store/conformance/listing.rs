//! Lists of grants, and purges, which keep the fingerprints of the purged row.

use super::*;
use crate::protocol::PurgeRefusal;

impl StorePlace {
    /// Returns the keys of all pages of at most `limit` grants.
    async fn pages(&self, names: &Names, limit: u32) -> Vec<TokenKey> {
        let mut keys = Vec::<TokenKey>::new();
        loop {
            let page = self.store.list(names, keys.last().cloned(), limit).await.unwrap().grants;
            assert!(page.len() <= limit as usize);
            let complete = page.len() < limit as usize;
            keys.extend(page.into_iter().map(|(key, _)| key));
            assert!(keys.len() < 100, "the pages do not end");
            if complete {
                return keys;
            }
        }
    }

    async fn disconnected(&self, key: &TokenKey, revoke: bool) -> Row {
        self.done(key, disconnecting(revoke), ChangeReply::Done).await
    }

    async fn purged(&self, key: &TokenKey) {
        let changed = self.change(key, Change::Purge).await;
        assert_eq!((changed.reply, changed.row, self.row(key).await), (ChangeReply::Done, None, None));
    }
}

fn names() -> Names {
    Names::default()
}

const USERS: [&str; 7] =
    ["acme/", "acme/\u{e4}", "acme/\u{1f511}", "acme/\u{10ffff}x", "acme0", "\u{ff5e}", "\u{1f511}"];

/// Connects every user at two identity providers with two accounts, in no particular order.
async fn crowd(place: &StorePlace) -> Vec<TokenKey> {
    let mut keys = Vec::new();
    for (number, user) in (1..).step_by(4).zip(USERS.into_iter().rev()) {
        let [b, a] = ["b", "a"].map(|idp| TokenKey::at(idp).user(user));
        for (key, number) in
            [(b.account("x"), number), (a.clone(), number + 1), (a.account("x"), number + 2), (b, number + 3)]
        {
            place.connected(&key, number).await;
            keys.push(key);
        }
    }
    keys.sort();
    keys
}

pub(super) async fn grants_are_filtered_by_every_name_and_ordered_by_bytes(place: &mut StorePlace) {
    let all = crowd(place).await;
    let gone = all[5].clone();
    place.disconnected(&gone, false).await;
    let some = |text: &str| Some(text.to_owned());
    for (names, expected) in [
        (names(), Box::new(|_: &TokenKey| true) as Box<dyn Fn(&TokenKey) -> bool>),
        (Names { idp: some("a"), ..names() }, Box::new(|key| key.idp() == "a")),
        (Names { idp: some("nobody"), ..names() }, Box::new(|_| false)),
        (Names { user: some("acme/\u{e4}"), ..names() }, Box::new(|key| key.user() == "acme/\u{e4}")),
        (Names { account: some(""), ..names() }, Box::new(|key| key.account_name().is_empty())),
        (Names { user_prefix: some("acme/"), ..names() }, Box::new(|key| key.user().starts_with("acme/"))),
        (Names { user_prefix: some("\u{1f511}"), ..names() }, Box::new(|key| key.user() == "\u{1f511}")),
        (Names { gone: true, ..names() }, Box::new(move |key| *key == gone)),
        (
            Names { idp: some("b"), user_prefix: some("acme/\u{e4}"), account: some("x"), ..names() },
            Box::new(|key| *key == TokenKey::at("b").user("acme/\u{e4}").account("x")),
        ),
        (
            Names { idp: some("b"), user_prefix: some("acme/"), ..names() },
            Box::new(|key| key.idp() == "b" && key.user().starts_with("acme/")),
        ),
    ] {
        let expected: Vec<_> = all.iter().filter(|key| expected(key)).cloned().collect();
        for limit in [1, 3, 100] {
            assert_eq!(place.pages(&names, limit).await, expected, "{names:?} by {limit}");
        }
    }
}

pub(super) async fn a_listed_row_is_the_stored_one_without_its_ciphertext(place: &mut StorePlace) {
    let row = place.connected(&key("alice"), 1).await;
    place.clock.advance(seconds(5));
    let listed = place.store.list(&names(), None, 9).await.unwrap();
    assert_eq!(listed.now, place.now());
    assert_eq!(listed.grants, [(key("alice"), Ok(row.without_ciphertext()))]);
}

pub(super) async fn pages_of_keys_skip_and_repeat_nothing_while_rows_come_and_change(place: &mut StorePlace) {
    let mut seen = Vec::<TokenKey>::new();
    for number in (0..20).step_by(2) {
        place.done(&nth(number, place.wall()).0, nth(number, place.wall()).1, ChangeReply::Done).await;
    }
    for turn in 0.. {
        let page = place.store.list(&names(), seen.last().cloned(), 3).await.unwrap().grants;
        assert!(turn < 20, "the pages do not end");
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|(key, _)| key));
        // Keys are connected on both sides of the cursor, and the rows on both sides are written.
        for number in [turn, 19 - turn] {
            let (key, change) = nth(number, place.wall());
            place.change(&key, change).await;
            place.change(&key, Change::Hold { reason: format!("turn {turn}") }).await;
        }
    }
    let numbers: Vec<u32> = seen.iter().map(|key| key.user()[5..].parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
    for number in (0..20).step_by(2) {
        assert!(numbers.contains(&number), "{number} in {numbers:?}");
    }
}

pub(super) async fn a_purged_key_keeps_its_generation_floor_and_its_fingerprints(place: &mut StorePlace) {
    let (alice, bob) = (key("alice"), key("bob"));
    place.connected(&alice, 1).await;
    place.refreshed(&alice, 1, 2).await;
    place.refreshed(&alice, 2, 3).await;
    let gone = place.disconnected(&alice, false).await;
    for _ in 0..2 {
        place.purged(&alice).await;
        place.restart().await;
    }
    // The first row inserted after the purge must not be taken for the purged one.
    let carol = place.connected(&key("carol"), 9).await;
    assert_eq!(carol.generation, gone.generation.next());
    for replayed in [1, 2, 3] {
        let again = place.change(&alice, connecting(&alice, Some(replayed), 99)).await;
        assert_eq!(
            (again.reply, again.row),
            (ChangeReply::Unchanged(Unchanged::TokenAlreadySpent), None),
            "{replayed}"
        );
    }
    // Token 2 came with a refresh and never left the store: no other key can bring it.
    assert_eq!(place.change(&bob, connecting(&bob, Some(1), 99)).await.reply, ChangeReply::Duplicate);
    let carols = place.change(&key("carol"), connecting(&key("carol"), Some(1), 99)).await;
    assert_eq!(carols.reply, ChangeReply::Duplicate);
    // Token 3 was neither spent nor revoked, so it may be connected under another key, as after every disconnect.
    place.connected(&bob, 3).await;

    let new = place.connected(&alice, 4).await;
    assert!(new.generation > gone.generation && new.grant_id != gone.grant_id);
    let spent = ChangeReply::Unchanged(Unchanged::TokenAlreadySpent);
    place.done(&alice, connecting(&alice, Some(1), 99), spent).await;
    place.disconnected(&alice, false).await;
    place.purged(&alice).await;
    // Tokens connected before either purge are recognized for ever; tokens that were only spent are forgotten.
    place.store.forget_spent(place.now() + seconds(1)).await.unwrap();
    for replayed in [1, 3, 4] {
        assert_eq!(place.change(&alice, connecting(&alice, Some(replayed), 99)).await.reply, spent, "{replayed}");
    }
    place.connected(&alice, 2).await;
}

pub(super) async fn a_purge_waits_for_doubts_and_revocations(place: &mut StorePlace) {
    let key = key("alice");
    let kept = |why| ChangeReply::NotPurged(why);
    let row = place.connected(&key, 1).await;
    place.done(&key, Change::Purge, kept(PurgeRefusal::Connected)).await;
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    place.disconnected(&key, true).await;
    place.done(&key, Change::Purge, kept(PurgeRefusal::InDoubt)).await;
    let clear = Change::Clear { incarnation: row.incarnation, intent: claimed.intent.clone().unwrap() };
    place.done(&key, clear, ChangeReply::Done).await;
    place.done(&key, Change::Purge, kept(PurgeRefusal::Revoking)).await;
    let queued = place.store.revocations(9).await.unwrap();
    place.store.revoked(queued[0].id, None).await.unwrap();
    place.purged(&key).await;
    assert_eq!(place.pages(&names(), 9).await, []);

    // A response that arrives after the purge is revoked, once, and its token belongs to no key. The token that the row
    // held is not revoked again.
    for (new, resolution) in [(1, Resolution::Drop), (2, Resolution::Revoke), (2, Resolution::Drop)] {
        let late = place.change(&key, committed(&commit(1, &claimed, new))).await;
        assert_eq!((late.reply, late.row), (ChangeReply::Resolved(resolution), None));
    }
    assert_eq!(place.store.revocations(9).await.unwrap().len(), 1);
    let again = place.change(&key, connecting(&key, Some(2), 99)).await;
    assert_eq!((again.reply, again.row), (ChangeReply::Unchanged(Unchanged::TokenAlreadySpent), None));
}
