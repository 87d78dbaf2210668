//! Revocations are queued, and can be canceled until they are begun.

use super::*;
use crate::store::Outbox;

pub(super) async fn revocations_are_queued_retried_and_done(place: &mut StorePlace) {
    for (number, user) in ["alice", "bob", "carol"].into_iter().enumerate() {
        place.connected(&key(user), number as u8 + 1).await;
        place.done(&key(user), disconnecting(true), ChangeReply::Done).await;
        place.clock.advance(seconds(1));
    }
    let outbox = async |place: &StorePlace, key: Option<TokenKey>| place.store.outbox(key).await.unwrap();
    let of = |pending, unconfirmed| Outbox { pending, unconfirmed };
    assert_eq!((outbox(place, None).await, outbox(place, Some(key("bob"))).await), (of(3, 0), of(1, 0)));
    let queued = place.store.revocations(2).await.unwrap();
    let users: Vec<_> = queued.iter().map(|queued| queued.key.user()).collect();
    assert_eq!((users, &queued[0].token, queued[0].failures), (vec!["alice", "bob"], &token(1).sealed, 0));
    let later = place.now() + seconds(60);
    assert!(place.store.revoking(&queued[0], later).await.unwrap());
    assert!(!place.store.revoking(&queued[0], later).await.unwrap(), "another sender has begun it");
    place.store.revoked(queued[0].id, Some(later)).await.unwrap();
    place.store.revoked(queued[1].id, None).await.unwrap();
    assert_eq!((outbox(place, None).await, outbox(place, Some(key("bob"))).await), (of(2, 1), of(0, 0)));
    assert_eq!(place.store.census().await.unwrap().outbox, of(2, 1));
    assert!(!place.store.revoking(&queued[1], later).await.unwrap(), "the revocation is done");
    place.restart().await;
    let users =
        |queued: Vec<QueuedRevocation>| queued.iter().map(|queued| queued.key.user().to_owned()).collect::<Vec<_>>();
    assert_eq!(users(place.store.revocations(9).await.unwrap()), ["carol"]);
    place.clock.advance(seconds(60));
    let queued = place.store.revocations(9).await.unwrap();
    assert_eq!((queued.last().unwrap().failures, users(queued)), (1, vec!["carol".into(), "alice".into()]));
}

pub(super) async fn a_revocation_is_queued_once_however_often_its_response_is_committed(place: &mut StorePlace) {
    let key = key("alice");
    let row = place.connected(&key, 1).await;
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    place.connected(&key, 2).await;
    for _ in 0..3 {
        place.done(&key, committed(&commit(1, &claimed, 3)), ChangeReply::Resolved(Resolution::Revoke)).await;
    }
    let queued = place.store.revocations(9).await.unwrap();
    assert_eq!(queued.iter().map(|queued| &queued.token).collect::<Vec<_>>(), [&token(3).sealed]);
}

pub(super) async fn a_connect_drops_only_the_revocations_of_its_key(place: &mut StorePlace) {
    for (number, user) in ["alice", "bob"].into_iter().enumerate() {
        place.connected(&key(user), number as u8 + 1).await;
        place.done(&key(user), disconnecting(true), ChangeReply::Done).await;
    }
    let connect = ConnectChange { cancels_revocations: true, ..connect(Some(3), 200) };
    place
        .done(
            &key("alice"),
            Change::Connect(Box::new(ConnectChange { key: key("alice"), ..connect })),
            ChangeReply::Done,
        )
        .await;
    let queued = place.store.revocations(9).await.unwrap();
    assert_eq!(queued.iter().map(|queued| queued.key.user()).collect::<Vec<_>>(), ["bob"]);
}

pub(super) async fn a_restore_cancels_revocations_that_were_not_begun(place: &mut StorePlace) {
    let (alice, bob) = (key("alice"), key("bob"));
    for (key, number) in [(&alice, 1), (&bob, 2)] {
        place.connected(key, number).await;
        place.done(key, disconnecting(true), ChangeReply::Done).await;
    }
    let listed = place.store.revocations(9).await.unwrap();
    let restored = place.done(&alice, Change::Restore, ChangeReply::Done).await;
    assert_eq!((restored.tombstone, restored.due_at), (None, Some(place.wall())));
    assert_eq!(place.due(place.wall()).await, ["alice"]);
    assert!(!place.store.revoking(&listed[0], place.now()).await.unwrap(), "it was canceled after it was listed");
    assert_eq!(place.store.revocations(9).await.unwrap().len(), 1);
    place.done(&alice, Change::Restore, ChangeReply::Done).await;

    assert!(place.store.revoking(&listed[1], place.now()).await.unwrap());
    place.done(&bob, Change::Restore, ChangeReply::Refused).await;
    place.store.revoked(listed[1].id, None).await.unwrap();
    place.done(&bob, Change::Restore, ChangeReply::Refused).await;

    place.connected(&bob, 3).await;
    place.done(&bob, disconnecting(false), ChangeReply::Done).await;
    place.done(&bob, Change::Restore, ChangeReply::Done).await;
    let nobody = place.change(&key("nobody"), Change::Restore).await;
    assert_eq!((nobody.reply, nobody.row), (ChangeReply::Refused, None));
}

pub(super) async fn a_token_that_another_key_now_holds_is_not_restored(place: &mut StorePlace) {
    let (alice, bob) = (key("alice"), key("bob"));
    let gone = || disconnecting(false);
    place.connected(&alice, 1).await;
    place.done(&alice, gone(), ChangeReply::Done).await;
    place.done(&bob, connecting(&bob, Some(1), 102), ChangeReply::Done).await;
    place.done(&alice, Change::Restore, ChangeReply::Refused).await;
    place.done(&bob, disconnecting(true), ChangeReply::Done).await;
    place.done(&alice, Change::Restore, ChangeReply::Refused).await;

    let carol = key("carol");
    place.connected(&carol, 5).await;
    place.done(&carol, gone(), ChangeReply::Done).await;
    place.done(&bob, connecting(&bob, Some(5), 106), ChangeReply::Done).await;
    place.refreshed(&bob, 1, 6).await;
    place.done(&carol, Change::Restore, ChangeReply::Refused).await;
}
