//! Replayed connects are recognized, and a refresh token is live under one key only.

use super::*;
use crate::store::{CONNECTED_KEPT, SPENT_KEPT};

pub(super) async fn a_replayed_connect_is_recognized(place: &mut StorePlace) {
    let key = key("alice");
    place.connected(&key, 1).await;
    place.refreshed(&key, 1, 2).await;
    let row = place.refreshed(&key, 2, 3).await;
    for (replayed, why) in
        [(1, Unchanged::TokenAlreadySpent), (2, Unchanged::TokenAlreadySpent), (3, Unchanged::AlreadyConnected)]
    {
        place.restart().await;
        let left = place.done(&key, connecting(&key, Some(replayed), 99), ChangeReply::Unchanged(why)).await;
        assert_eq!(left, row);
    }
    let row = place.connected(&key, 4).await;
    assert_eq!((row.generation, row.incarnation), (Generation(4), id(104)));
    place.done(&key, connecting(&key, Some(3), 99), ChangeReply::Unchanged(Unchanged::TokenAlreadySpent)).await;
}

pub(super) async fn the_newest_connects_are_recognized_however_many_there_were(place: &mut StorePlace) {
    let (key, bob) = (key("alice"), key("bob"));
    place.connected(&bob, 250).await;
    let last = 99;
    for number in 1..=last {
        place.clock.advance(seconds(1));
        place.connected(&key, number).await;
    }
    let oldest_kept = last + 1 - CONNECTED_KEPT as u8;
    for replayed in oldest_kept..last {
        let spent = ChangeReply::Unchanged(Unchanged::TokenAlreadySpent);
        place.done(&key, connecting(&key, Some(replayed), 99), spent).await;
    }
    place.done(&bob, connecting(&bob, Some(250), 99), ChangeReply::Unchanged(Unchanged::AlreadyConnected)).await;
    place.done(&key, connecting(&key, Some(oldest_kept - 1), 200), ChangeReply::Done).await;
}

pub(super) async fn a_refresh_token_that_is_live_under_another_key_is_refused(place: &mut StorePlace) {
    let (alice, bob) = (key("alice"), key("bob"));
    place.connected(&alice, 1).await;
    let before = place.connected(&bob, 9).await;
    let refused = place.done(&bob, connecting(&bob, Some(1), 99), ChangeReply::Duplicate).await;
    assert_eq!(refused, before);
    let nobody = place.change(&key("carol"), connecting(&key("carol"), Some(1), 99)).await;
    assert_eq!((nobody.reply, nobody.row), (ChangeReply::Duplicate, None));
    // Tokens that alice's refreshes obtained or spent belong to her key too.
    place.refreshed(&alice, 1, 2).await;
    for taken in [1, 2] {
        place.done(&bob, connecting(&bob, Some(taken), 99), ChangeReply::Duplicate).await;
    }
    // Another account of the same user is another key.
    let account = alice.account("work");
    assert_eq!(place.change(&account, connecting(&account, Some(2), 99)).await.reply, ChangeReply::Duplicate);
    // After a disconnect, the token may be connected under another key.
    place.done(&alice, disconnecting(false), ChangeReply::Done).await;
    place.connected(&bob, 2).await;
}

pub(super) async fn a_refresh_token_that_a_disconnected_key_is_spending_is_refused(place: &mut StorePlace) {
    let (alice, bob) = (key("alice"), key("bob"));
    let row = place.connected(&alice, 1).await;
    let claimed = place.done(&alice, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    place.done(&alice, disconnecting(false), ChangeReply::Done).await;
    let taken = || connecting(&bob, Some(1), 99);
    assert_eq!(place.change(&bob, taken()).await.reply, ChangeReply::Duplicate, "the token is in flight");
    let intent = claimed.intent.unwrap();
    place.done(&alice, Change::Clear { incarnation: claimed.incarnation, intent }, ChangeReply::Done).await;
    assert_eq!(
        place.change(&bob, taken()).await.reply,
        ChangeReply::Duplicate,
        "whether the token was spent is unknown"
    );
}

pub(super) async fn the_newest_spent_tokens_are_recognized_however_many_there_were(place: &mut StorePlace) {
    let key = key("alice");
    place.connected(&key, 1).await;
    let last = 100;
    for number in 2..=last {
        place.refreshed(&key, number - 1, number).await;
    }
    place.clock.advance(seconds(400 * 24 * 3_600));
    place.store.forget_spent(place.now()).await.unwrap();
    let oldest_kept = last - SPENT_KEPT as u8;
    for replayed in (oldest_kept..last).chain([1]) {
        let spent = ChangeReply::Unchanged(Unchanged::TokenAlreadySpent);
        place.done(&key, connecting(&key, Some(replayed), 99), spent).await;
    }
    place.done(&key, connecting(&key, Some(oldest_kept - 1), 200), ChangeReply::Done).await;
}

pub(super) async fn a_token_that_comes_back_is_not_spent(place: &mut StorePlace) {
    let key = key("alice");
    place.connected(&key, 1).await;
    for (spent, brought) in [(1, 2), (2, 1), (1, 3), (3, 2)] {
        let row = place.refreshed(&key, spent, brought).await;
        place
            .done(&key, connecting(&key, Some(brought), 99), ChangeReply::Unchanged(Unchanged::AlreadyConnected))
            .await;
        let claimed = place.done(&key, Change::Claim(claim(77, &row)), ChangeReply::Done).await;
        place.done(&key, Change::Cancel(ending(77, &claimed)), ChangeReply::Done).await;
    }
}
