//! When a token is due, and when its user is to be warned.

use std::time::Duration;

use crate::model::{Expires, Row, StoreTime, TokenKey, WallTime};

/// The time at which the refresh of a token should start.
///
/// Its end, minus `margin` (at most a quarter of its life), minus a jitter that is always the same for
/// a key (below a minute and a tenth of the life), so that a token is never due when just issued and a
/// fleet does not act together. With a margin of 5 minutes: a token of 1 hour is due after 54 to 55
/// minutes, a token of 10 minutes after 6.5 to 7.5. Tokens without a known end are never due by themselves.
pub(crate) fn due_at(key: &TokenKey, issued_at: WallTime, expires: Expires, margin: Duration) -> Option<WallTime> {
    let end = expires.at()?;
    let life = end.since(issued_at);
    let widest = (life / 10).min(Duration::from_secs(60)).as_millis().max(1) as u64;
    let jitter = Duration::from_millis(key.stable_hash() % widest);
    Some(end.minus(margin.min(life / 4)).minus(jitter))
}

/// When to tell people that a refresh token ends: a quarter of its life ahead, at most a week. `now` at the
/// earliest, so that whoever looks for what has come up since the last time misses nothing.
pub(crate) fn notice_at(ends: Expires, issued_at: WallTime, now: StoreTime) -> Option<StoreTime> {
    let end = ends.at()?;
    Some(end.minus(WEEK.min(end.since(issued_at) / 4)).by_store_clock().max(now))
}

/// The same after a refresh of `row`, as of which the refresh token ends like this.
///
/// Some refresh tokens get a new life with each refresh, others end when they end, and a provider that says so
/// in seconds says it anew each time: what ends as before (by a minute) is told when it was to be told.
pub(crate) fn next_notice_at(row: &Row, ends: Expires, issued_at: WallTime, now: StoreTime) -> Option<StoreTime> {
    let same = ends.at().zip(row.refresh_expires.at()).is_some_and(|(end, known)| end.0.abs_diff(known.0) <= 60_000);
    row.notice_at.filter(|_| same).or_else(|| notice_at(ends, issued_at, now))
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::tests::row;

    const DAY: i64 = 24 * 3_600_000;

    #[test]
    fn people_are_told_a_quarter_of_its_life_before_a_refresh_token_ends_and_at_most_a_week() {
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
    fn a_refresh_moves_the_notice_only_if_it_moves_the_end() {
        let at = |day: i64, seconds: i64| Expires::At(WallTime(day * DAY + seconds * 1_000));
        let known = Row { refresh_expires: at(8, 0), notice_at: Some(StoreTime(6 * DAY)), ..row() };
        let of_an_older_version = Row { notice_at: None, ..known.clone() };
        let table = [
            ("it ends when it ends", &known, at(8, 0), Some(6 * DAY)),
            ("which the provider says in seconds", &known, at(8, -59), Some(6 * DAY)),
            ("a new life", &known, at(15, 0), Some(13 * DAY)),
            ("a shorter one", &known, at(7, 12 * 3_600), Some(7 * DAY + DAY * 3 / 8)),
            ("for ever", &known, Expires::Never, None),
            ("never looked at", &of_an_older_version, at(8, 0), Some(7 * DAY + DAY * 3 / 4)),
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
        fn never_due_when_just_issued_never_later_than_the_end(
            user in "[a-z]{1,8}", life in 0_i64..100_000_000, margin in 0_u64..1_000_000,
        ) {
            let key = TokenKey::at("idp").user(user);
            let due = due_at(&key, WallTime(5), Expires::At(WallTime(5 + life)), Duration::from_secs(margin)).unwrap();
            prop_assert!(due.0 - 5 >= life * 6 / 10);
            prop_assert!(due.0 - 5 <= life);
            prop_assert_eq!(due_at(&key, WallTime(5), Expires::Never, Duration::ZERO), None);
        }
    }
}
