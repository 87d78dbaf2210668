//! The census agrees with the rows.

use std::collections::BTreeMap;

use super::*;
use crate::store::Counted;

pub(super) async fn the_census_counts_the_listed_grants(place: &mut StorePlace) {
    let keys: Vec<_> =
        (1..=9).map(|number| TokenKey::at(if number < 9 { "a" } else { "b" }).user(format!("user{number}"))).collect();
    for (key, number) in keys.iter().zip(1..) {
        place.connected(key, number).await;
    }
    let held = Change::Hold { reason: "x".to_owned() };
    for (key, change) in keys.iter().zip([
        disconnecting(false),
        Change::RequireReconnect { reason: "x".to_owned() },
        Change::Claim(sample::claim(1, &place.row(&keys[2]).await.unwrap())),
        held,
    ]) {
        assert_eq!(place.change(key, change).await.reply, ChangeReply::Done);
    }
    let lone = TokenKey::at("a").user("lone");
    place.done(&lone, connecting(&lone, None, 99), ChangeReply::Done).await;
    for step in [Duration::ZERO, LEASE, 24 * seconds(3_600)] {
        place.clock.advance(step);
        let listed = place.store.list(&Names::default(), None, 100).await.unwrap();
        let census = place.store.census().await.unwrap();
        assert_eq!(census.now, listed.now);
        let mut states = BTreeMap::<_, u64>::new();
        let (mut lates, mut ends) = (Vec::new(), Vec::new());
        for (key, row) in &listed.grants {
            let row = row.as_ref().unwrap();
            *states.entry((key.idp().to_owned(), row.state(listed.now).as_str())).or_default() += 1;
            lates.extend(row.due_at);
            ends.extend(row.expires.at().filter(|end| *end > listed.now.by_wall_clock()));
        }
        let mut counted = BTreeMap::<_, u64>::new();
        for alike in &census.counted {
            *counted.entry((alike.idp.clone(), alike.marks.state().as_str())).or_default() += alike.grants;
        }
        assert_eq!(counted, states);
        assert_eq!(census.counted.iter().filter_map(|alike| alike.first_due).min(), lates.into_iter().min());
        assert_eq!(census.counted.iter().filter_map(|alike| alike.first_end).min(), ends.into_iter().min());
        let number = |fits: fn(&Counted) -> bool| {
            census.counted.iter().filter(|alike| fits(alike)).map(|alike| alike.grants).sum::<u64>()
        };
        assert_eq!((number(|alike| alike.held), number(|alike| alike.refreshable)), (1, 9));
    }
}
