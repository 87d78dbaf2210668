//! When a token is due.

use std::time::Duration;

use crate::model::{Expires, Time, TokenKey};

/// The time at which the refresh of a token should start.
///
/// Its end, minus `margin` (at most a quarter of its life), minus a jitter that is always the same for
/// a key (below a minute and a tenth of the life), so that a token is never due when just issued and a
/// fleet does not act together. With a margin of 5 minutes: a token of 1 hour is due after 54 to 55
/// minutes, a token of 10 minutes after 6.5 to 7.5. Tokens without a known end are never due by themselves.
pub(crate) fn due_at(key: &TokenKey, issued_at: Time, expires: Expires, margin: Duration) -> Option<Time> {
    let end = expires.at()?;
    let life = end.since(issued_at);
    let widest = (life / 10).min(Duration::from_secs(60)).as_millis().max(1) as u64;
    let jitter = Duration::from_millis(key.stable_hash() % widest);
    Some(end.minus(margin.min(life / 4)).minus(jitter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_due_when_just_issued_never_later_than_the_end(
            user in "[a-z]{1,8}", life in 0_i64..100_000_000, margin in 0_u64..1_000_000,
        ) {
            let key = TokenKey::new(user, "idp");
            let due = due_at(&key, Time(5), Expires::At(Time(5 + life)), Duration::from_secs(margin)).unwrap();
            prop_assert!(due.0 - 5 >= life * 6 / 10);
            prop_assert!(due.0 - 5 <= life);
            prop_assert_eq!(due_at(&key, Time(5), Expires::Never, Duration::ZERO), None);
        }
    }
}
