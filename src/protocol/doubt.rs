//! What to do about a request whose response is missing.

use std::time::Duration;

use crate::model::{Intent, Row, Sender, StoreTime};

/// The settings of one identity provider that decide about doubts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    /// The provider processes no request later than this after its sender ended.
    pub(crate) settle: Duration,
    /// A request is sent at most this long after its claim was issued.
    pub(crate) send_window: Duration,
    /// How long a sender waits for a response.
    pub(crate) patience: Duration,
    pub(crate) lease: Duration,
    /// The time within which a second use gives a valid response; zero if there is none.
    pub(crate) grace: Duration,
    /// Whether the identity provider keeps a refresh token valid until the one that replaced it is used.
    pub(crate) retry_safe: bool,
    /// Whether to send the token again if a doubt cannot be resolved; otherwise the user must go through consent.
    pub(crate) try_in_doubt: bool,
    /// Whether the identity provider documents that refresh tokens do not rotate.
    pub(crate) never_rotates: bool,
    pub(crate) probe: ProbeMeans,
}

/// How to find out whether a refresh token is spent, without spending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeMeans {
    /// There is no way.
    Absent,
    /// The access token of a spent refresh token is not valid any more. It may be invalid for other reasons, too.
    AccessToken,
    /// The identity provider says whether a refresh token is active.
    Introspection,
}

/// What a probe says of a refresh token in doubt. The names are those of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum ProbeAnswer {
    /// It is not spent.
    Unspent,
    /// It is spent, or its grant has ended.
    Spent,
    /// Nothing, and a second probe would say nothing either.
    Nothing,
    /// Nothing: the identity provider did not respond as it should.
    Silent,
}

impl Rules {
    /// Returns whether that holds for this row: a token that has rotated disproves it.
    pub(crate) fn never_rotates(&self, row: &Row) -> bool {
        self.never_rotates && !row.has_rotated()
    }

    /// Returns whether the token of this intent can be sent again although another sender may still receive the response to
    /// it: its successor is not used before it is stored. Not after the store lost a response: then a successor that nobody
    /// knows may have been used.
    pub(crate) fn may_repeat(&self, intent: &Intent) -> bool {
        self.retry_safe && !intent.senders.iter().any(Sender::is_unknown)
    }

    /// Returns how long after its claim a request of a sender that nothing is heard of may still be processed.
    pub(crate) fn longest_request(&self) -> Duration {
        self.send_window + self.patience + self.settle
    }
}

/// What to do about a doubt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doubt {
    /// Clear it: it is about a token that the row no longer spends, and it has settled.
    Clear,
    /// Look again at this time.
    Wait(StoreTime),
    /// Ask the identity provider whether the token is spent.
    Probe,
    /// Send the token again.
    Recover,
    /// The token is spent, and nobody will receive the response: what a refusal would say, without the request.
    Spent,
    /// Require consent.
    GiveUp,
}

/// Decides about `row`'s intent; `None` if there is none. `probed` is what a probe has said since the intent was read.
///
/// A sender that is not closed belongs to another process and may still receive the response: the caller has closed the
/// dead senders whose journals are on our own disk while it held the lock of their journal.
pub(crate) fn doubt(row: &Row, now: StoreTime, rules: &Rules, probed: Option<ProbeAnswer>) -> Option<Doubt> {
    let intent = row.intent.as_ref()?;
    let ended = intent.senders.iter().all(|sender| sender.closed);
    let settled_at =
        if ended { intent.settle_from + rules.settle } else { intent.settle_from + rules.longest_request() };
    Some(if intent.generation < row.generation {
        if now >= settled_at { Doubt::Clear } else { Doubt::Wait(settled_at) }
    } else if row.lease_live(now) {
        Doubt::Wait(row.lease.map_or(settled_at, |lease| lease.until))
    } else if rules.never_rotates(row) && ended {
        Doubt::Recover
    } else if now < settled_at {
        Doubt::Wait(settled_at)
    } else if rules.never_rotates(row) || rules.may_repeat(intent) || now < intent.since + rules.grace {
        Doubt::Recover
    } else {
        match (rules.probe, probed) {
            (ProbeMeans::Introspection, None) => Doubt::Probe,
            // Nobody will receive the response. Sending the token would only show its second use to the provider, which may end
            // more than this grant.
            (_, Some(ProbeAnswer::Spent)) if ended => Doubt::Spent,
            _ if ended => Doubt::Recover,
            (ProbeMeans::AccessToken, None) => Doubt::Probe,
            // It has settled: no request with the token can be processed any more, so there is no response.
            (_, Some(ProbeAnswer::Unspent)) => Doubt::Recover,
            (_, Some(ProbeAnswer::Spent)) => {
                unresolvable(row, intent.since, now, &Rules { try_in_doubt: false, ..*rules })
            }
            (_, Some(ProbeAnswer::Silent)) => match unresolvable(row, intent.since, now, rules) {
                Doubt::Wait(deadline) => Doubt::Wait(deadline.min(now + PROBED_AGAIN)),
                end => end,
            },
            (_, None | Some(ProbeAnswer::Nothing)) => unresolvable(row, intent.since, now, rules),
        }
    })
}

/// How long to wait until a provider that did not respond is probed again.
const PROBED_AGAIN: Duration = Duration::from_secs(60);

/// Another process may still hold the response: wait as long as that does not affect the user.
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
