//! What to do about a request whose answer nobody has.

use std::time::Duration;

use crate::model::{Row, StoreTime};

/// The times that decide, of one identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    /// No request is processed later than this after its sender ended.
    pub(crate) settle: Duration,
    /// A request is written at most this long after its claim was issued.
    pub(crate) send_window: Duration,
    /// How long a sender waits for an answer.
    pub(crate) patience: Duration,
    pub(crate) lease: Duration,
    /// Within it a second use gives a valid answer; zero where there is none.
    pub(crate) grace: Duration,
    /// What becomes of a doubt that nobody can resolve: sent again, or the user is asked.
    pub(crate) try_in_doubt: bool,
    /// The identity provider's documented promise that the refresh token stays.
    pub(crate) never_rotates: bool,
}

impl Rules {
    /// Whether the promise holds for this row: one that has rotated is believed at once.
    pub(crate) fn never_rotates(&self, row: &Row) -> bool {
        self.never_rotates && !row.has_rotated()
    }
}

/// What a doubt asks for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doubt {
    /// It is about a token that the row no longer spends, and it is over.
    Clear,
    /// Look again then.
    Wait(StoreTime),
    /// Send the token again.
    Recover,
    /// Ask the user.
    GiveUp,
}

/// Decides about `row`'s intent; `None` if there is none.
///
/// A sender that is not closed is somebody else's and may still receive the answer: senders that died on
/// our own disk were closed before this is asked, at a moment when we held their journal's lock.
pub(crate) fn doubt(row: &Row, now: StoreTime, rules: &Rules) -> Option<Doubt> {
    let intent = row.intent.as_ref()?;
    let ended = intent.senders.iter().all(|sender| sender.closed);
    let settled_at = if ended {
        intent.settle_from + rules.settle
    } else {
        intent.settle_from + rules.send_window + rules.patience + rules.settle
    };
    Some(if intent.generation < row.generation {
        if now >= settled_at { Doubt::Clear } else { Doubt::Wait(settled_at) }
    } else if row.lease_live(now) {
        Doubt::Wait(row.lease.map_or(settled_at, |lease| lease.until))
    } else if rules.never_rotates(row) && ended {
        Doubt::Recover
    } else if now < settled_at {
        Doubt::Wait(settled_at)
    } else if ended || rules.never_rotates(row) || now < intent.since + rules.grace {
        Doubt::Recover
    } else {
        unresolvable(row, intent.since, now, rules)
    })
}

/// A foreign sender may still hold the answer: wait for as long as that costs the user nothing.
fn unresolvable(row: &Row, since: StoreTime, now: StoreTime, rules: &Rules) -> Doubt {
    let [expires, refresh_expires] = [row.expires, row.refresh_expires].map(|end| Some(end.at()?.by_store_clock()));
    let patience_ends = expires.map_or(since + Duration::from_secs(3_600), |end| end + 2 * rules.lease);
    let deadline = refresh_expires.map_or(patience_ends, |end| patience_ends.min(end.minus(2 * rules.lease)));
    match (now >= deadline, rules.try_in_doubt) {
        (false, _) => Doubt::Wait(deadline),
        (true, true) => Doubt::Recover,
        (true, false) => Doubt::GiveUp,
    }
}
