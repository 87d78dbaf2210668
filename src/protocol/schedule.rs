//! When a token is due for a refresh, and when the expiration of a refresh token is reported.

use std::time::Duration;

use crate::model::{Expires, Row, StoreTime, TokenKey, WallTime};

/// Returns when the refresh of a token should start.
///
/// It is the expiration, minus `margin` (at most a quarter of the lifetime), minus a jitter that is always the same for
/// a key (below a minute and a tenth of the lifetime), so that a token is never due when just issued and a fleet does
/// not act at the same moment. With a margin of 5 minutes, a token of 1 hour is due after 54 to 55 minutes, a token of
/// 10 minutes after 6.5 to 7.5. Without a known expiration nothing is ever due. If the refresh token expires before the
/// access token is due, the same counts for the refresh token; an end of it that is over already says nothing.
pub(crate) fn due_at(
    key: &TokenKey,
    issued_at: WallTime,
    [expires, refresh_expires]: [Expires; 2],
    margin: Duration,
) -> Option<WallTime> {
    let refresh_expires = refresh_expires.at().filter(|end| *end > issued_at).map_or(Expires::Unknown, Expires::At);
    [expires, refresh_expires].into_iter().filter_map(|expires| due_before(key, issued_at, expires, margin)).min()
}

fn due_before(key: &TokenKey, issued_at: WallTime, expires: Expires, margin: Duration) -> Option<WallTime> {
    let end = expires.at()?;
    let lifetime = end.since(issued_at);
    let widest = (lifetime / 10).min(Duration::from_secs(60)).as_millis().max(1) as u64;
    let jitter = Duration::from_millis(key.stable_hash() % widest);
    Some(end.minus(margin.min(lifetime / 4)).minus(jitter))
}

/// Returns when to report that a refresh token will expire: a quarter of its lifetime before, at most a week. `now` at
/// the earliest, so that a search for the notices since the last search misses none.
pub(crate) fn notice_at(ends: Expires, issued_at: WallTime, now: StoreTime) -> Option<StoreTime> {
    let end = ends.at()?;
    Some(end.minus(WEEK.min(end.since(issued_at) / 4)).by_store_clock().max(now))
}

/// Returns the same after a refresh of `row` that set this expiration of the refresh token.
///
/// Some refresh tokens get a new lifetime with each refresh, others keep their expiration, which a provider that counts
/// in seconds states anew each time: if the expiration is as before (within a minute), so is the notice.
pub(crate) fn next_notice_at(row: &Row, ends: Expires, issued_at: WallTime, now: StoreTime) -> Option<StoreTime> {
    let same = ends.at().zip(row.refresh_expires.at()).is_some_and(|(end, known)| end.0.abs_diff(known.0) <= 60_000);
    row.notice_at.filter(|_| same).or_else(|| notice_at(ends, issued_at, now))
}

/// Returns when the row needs attention without a caller's request: when it is due, when its doubt settles, or when it
/// ends by itself.
pub(crate) fn wake_at(row: &Row) -> Option<WallTime> {
    if let Some(intent) = &row.intent {
        // A row that was due keeps its place in the index when it is claimed.
        let settles = intent.settle_from.by_wall_clock();
        return (!row.doubt_is_moot()).then_some(row.due_at.map_or(settles, |due| due.min(settles)));
    }
    if row.refresh_token.is_none() {
        // Then the user must consent again, which is to be reported.
        return row.expires.at().filter(|_| row.tombstone.is_none() && row.verdict.is_none());
    }
    row.due_at.filter(|_| row.sendable()).max(row.retry_at.filter(|_| row.sendable()))
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::tests::row;

    const DAY: i64 = 24 * 3_600_000;

    #[test]
    fn an_expiration_is_reported_a_quarter_of_the_lifetime_before_and_at_most_a_week() {
        let table = [
            (Expires::At(WallTime(180 * DAY)), 0, Some(173 * DAY)),
            (Expires::At(WallTime(8 * DAY)), 0, Some(6 * DAY)),
            (Expires::At(WallTime(8 * DAY)), 7 * DAY, Some(7 * DAY)),
            (Expires::At(WallTime(8 * DAY)), 9 * DAY, Some(9 * DAY)),
            (Expires::Never, 0, None),
            (Expires::Unknown, 0, None),
        ];
        for (ends, now, expected) in table {
            assert_eq!(
                notice_at(ends, WallTime(0), StoreTime(now)),
                expected.map(StoreTime),
                "{ends:?}, stored at {now}"
            );
        }
    }

    #[test]
    fn a_refresh_moves_the_notice_only_if_it_moves_the_expiration() {
        let at = |day: i64, seconds: i64| Expires::At(WallTime(day * DAY + seconds * 1_000));
        let known = Row { refresh_expires: at(8, 0), notice_at: Some(StoreTime(6 * DAY)), ..row() };
        let of_an_older_version = Row { notice_at: None, ..known.clone() };
        let table = [
            ("the same expiration", &known, at(8, 0), Some(6 * DAY)),
            ("the same, rounded to seconds", &known, at(8, -59), Some(6 * DAY)),
            ("a new lifetime", &known, at(15, 0), Some(13 * DAY)),
            ("a shorter lifetime", &known, at(7, 12 * 3_600), Some(7 * DAY + DAY * 3 / 8)),
            ("no expiration any more", &known, Expires::Never, None),
            ("no notice so far", &of_an_older_version, at(8, 0), Some(7 * DAY + DAY * 3 / 4)),
        ];
        for (why, row, ends, expected) in table {
            assert_eq!(
                next_notice_at(row, ends, WallTime(7 * DAY), StoreTime(7 * DAY)),
                expected.map(StoreTime),
                "{why}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_token_is_never_due_when_just_issued_nor_after_its_expiration(
            user in "[a-z]{1,8}", lifetime in 0_i64..100_000_000, margin in 0_u64..1_000_000,
        ) {
            let key = TokenKey::at("idp").user(user);
            let (ends, margin) = (Expires::At(WallTime(5 + lifetime)), Duration::from_secs(margin));
            let due = due_at(&key, WallTime(5), [ends, Expires::Never], margin).unwrap();
            prop_assert!(due.0 - 5 >= lifetime * 6 / 10);
            prop_assert!(due.0 - 5 <= lifetime);
            prop_assert_eq!(due_at(&key, WallTime(5), [Expires::Unknown, Expires::Never], Duration::ZERO), None);
            let later = Expires::At(WallTime(5 + 2 * lifetime));
            let first = due_at(&key, WallTime(5), [later, ends], margin);
            prop_assert!(first == Some(due) || lifetime == 0, "the refresh token ends first");
            let over = Expires::At(WallTime(4));
            prop_assert_eq!(due_at(&key, WallTime(5), [Expires::Never, over], margin), None);
        }
    }
}
