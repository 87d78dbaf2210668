//! Pages of due rows and of expiring grants.

use super::*;

pub(super) async fn pages_of_due_rows_come_in_order_and_skip_nothing(place: &mut StorePlace) {
    let now = place.wall();
    // Three at each time, written out of order.
    for number in (0..30).rev() {
        let (key, change) = nth(number, now + seconds(u64::from(number / 3)));
        place.done(&key, change, ChangeReply::Done).await;
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = place.store.due("idp", now + seconds(6), after, 4).await.unwrap();
        assert!(page.rows.len() <= 4);
        seen.extend(page.rows.iter().map(|row| row.key.user()[5..].parse::<u32>().unwrap()));
        pages += 1;
        // A connect between two pages: a key before the cursor is found in the next round, a key after it in this one.
        let (key, change) = nth(100 + pages, if pages == 1 { now } else { now + seconds(6) });
        place.done(&key, change, ChangeReply::Done).await;
        match page.next {
            Some(_) => after = page.next,
            None => break,
        }
        assert!(pages < 20, "the pages do not end");
    }
    let times: Vec<_> = seen.iter().map(|number| if *number < 100 { number / 3 } else { 6 }).collect();
    assert!(times.is_sorted(), "{seen:?}");
    for number in 0..21 {
        assert_eq!(seen.iter().filter(|seen| **seen == number).count(), 1, "{number} in {seen:?}");
    }
    assert!(!seen.contains(&101) && seen.contains(&102), "{seen:?}");
    let early = place.store.due("idp", WallTime(now.0 - 1), None, 4).await.unwrap();
    assert_eq!((early.rows.len(), early.next, early.later), (0, None, Some(now)));
    let last = place.store.due("idp", now + seconds(9), None, 99).await.unwrap();
    assert_eq!((last.rows.len() > 30, last.later), (true, None));
    let other = place.store.due("other", now + seconds(9), None, 99).await.unwrap();
    assert_eq!((other.rows.len(), other.later), (0, None));
}

pub(super) async fn rows_that_need_no_attention_are_not_due(place: &mut StorePlace) {
    let (key, late) = (key("alice"), place.wall() + seconds(1_000_000));
    let row = place.connected(&key, 1).await;
    let due = row.due_at.unwrap();
    assert_eq!(place.due(due).await, ["alice"]);
    assert!(place.due(WallTime(due.0 - 1)).await.is_empty());
    let claimed = place.done(&key, Change::Claim(claim(1, &row)), ChangeReply::Done).await;
    assert_eq!(place.due(place.wall()).await, ["alice"], "its doubt must be settled");
    place.done(&key, sample::refuse(1, &claimed), ChangeReply::Done).await;
    assert!(place.due(late).await.is_empty(), "the user has to reconnect");
    let row = place.connected(&key, 2).await;
    assert_eq!(place.due(late).await, ["alice"]);
    place.done(&key, Change::Claim(claim(2, &row)), ChangeReply::Done).await;
    place.done(&key, disconnecting(false), ChangeReply::Done).await;
    assert_eq!(place.due(late).await, ["alice"], "its doubt must be cleared");
    place.done(&key, Change::Cancel(ending(2, &row)), ChangeReply::Done).await;
    assert!(place.due(late).await.is_empty(), "disconnected");
    place.done(&key, connecting(&key, None, 99), ChangeReply::Done).await;
    let row = place.row(&key).await.unwrap();
    let end = row.expires.at().unwrap();
    assert!(place.due(WallTime(end.0 - 1)).await.is_empty(), "nothing can be done before its end");
    assert_eq!(place.due(end).await, ["alice"], "its end is to be reported");
}

pub(super) async fn expiring_grants_come_in_pages_by_the_time_of_their_notice(place: &mut StorePlace) {
    let now = place.wall();
    for number in 0..9 {
        let (key, change) = nth(number, now);
        let Change::Connect(mut connect) = change else { panic!("a connect") };
        // The notices are due a week before expiry, and an hour apart.
        connect.refresh_expires = Expires::At(now + seconds(100 * 24 * 3_600 + u64::from(number) * 3_600));
        place.done(&key, Change::Connect(connect), ChangeReply::Done).await;
    }
    let forever = nth(9, now);
    place.done(&forever.0, forever.1, ChangeReply::Done).await;
    let (gone, refused) = (nth(4, now).0, nth(5, now).0);
    place.done(&gone, disconnecting(false), ChangeReply::Done).await;
    place.done(&refused, Change::RequireReconnect { reason: "left".to_owned() }, ChangeReply::Done).await;
    let hour = |number: u64| place.now() + seconds(93 * 24 * 3_600 + number * 3_600);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = place.store.expiring(hour(2)..hour(8), after, 2).await.unwrap();
        assert!(page.len() <= 2);
        seen.extend(page.iter().map(|grant| grant.key.user()[5..].parse::<u32>().unwrap()));
        match page.last() {
            Some(last) => {
                let row = place.row(&last.key).await.unwrap();
                assert_eq!((&last.grant_id, last.consent_expires), (&row.grant_id, row.refresh_expires));
                after = Some(last.clone());
            }
            None => break,
        }
    }
    assert_eq!(seen, [2, 3, 6, 7], "notices in the range, without the tombstone and the grant that must reconnect");
}
