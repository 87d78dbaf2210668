//! Real time: tests with a real server live in its time.

use std::time::{Duration, SystemTime};

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a real server's tokens are judged by the wall clock")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// Looks until there is something.
///
/// # Panics
/// If there is nothing `within` this time.
pub(crate) async fn polled<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    polled_async(what, within, async || look()).await
}

/// As [`polled`], for looks that take time.
pub(crate) async fn polled_async<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    looked(within, look).await.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Looks until there is something, or the time is over.
pub(crate) async fn looked<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let poll = async {
        loop {
            looks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(within, poll).await.ok()
}

/// Lets time pass.
pub(crate) async fn pass(time: Duration) {
    let mut ticks = tokio::time::interval(time);
    ticks.tick().await;
    ticks.tick().await;
}
