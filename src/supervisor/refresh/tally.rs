//! The result of an attempt, as the metrics count it.

use crate::{
    idp::{self, Meaning},
    model::{Generation, Id, Row},
    protocol::{Commit, attempt::AttemptEffect, resolve::Resolution},
    supervisor::provider::{RefreshOutcome, RefreshPhase},
};

/// The provider's response, as far as it decides the result.
#[derive(Clone, Copy)]
pub(super) enum Heard {
    /// A token: the result of its commit decides.
    Token,
    /// A refusal that counts unless another process has stored a newer token.
    Refusal,
    Failure(RefreshOutcome),
}

impl Heard {
    /// `stays` if the refresh token is not spent by being sent.
    pub(super) fn of(outcome: &idp::ResponseOutcome, stays: bool) -> Self {
        match outcome {
            idp::ResponseOutcome::Refreshed(_) => Self::Token,
            idp::ResponseOutcome::InvalidGrant(_) => Self::Refusal,
            idp::ResponseOutcome::Unknown(_) if stays => Self::Failure(RefreshOutcome::Transient),
            idp::ResponseOutcome::Unknown(_) => Self::Failure(RefreshOutcome::InDoubt),
            idp::ResponseOutcome::NotSpent(failure) => Self::Failure(match failure.meaning {
                Meaning::UserMustReconnect => RefreshOutcome::User,
                Meaning::OperatorFault => RefreshOutcome::Operator,
                Meaning::Throttled => RefreshOutcome::Throttled,
                Meaning::Race => RefreshOutcome::Race,
                Meaning::Transient => RefreshOutcome::Transient,
            }),
        }
    }
}

/// Returns the result of an attempt, if it had one: from what was heard, the commit with its resolution, the row as it was
/// read last, and the incarnation and generation that the caller of the refresh had seen.
pub(super) fn tally(
    heard: Option<Heard>,
    answer: Option<(&Commit, Resolution)>,
    row: Option<&Row>,
    (incarnation, generation): (Id, Generation),
) -> Option<RefreshOutcome> {
    let moved = row.is_some_and(|row| row.incarnation != incarnation || row.generation > generation);
    match (heard, answer) {
        (Some(Heard::Failure(outcome)), _) => Some(outcome),
        (Some(Heard::Refusal), _) if row.is_some_and(|row| row.verdict.is_some()) => Some(RefreshOutcome::User),
        (Some(Heard::Refusal), _) => Some(RefreshOutcome::Adopted),
        (Some(Heard::Token), Some((commit, Resolution::Own | Resolution::Replace))) => {
            Some(if commit.child() == commit.parent { RefreshOutcome::Kept } else { RefreshOutcome::Rotated })
        }
        (Some(Heard::Token), Some(_)) => Some(RefreshOutcome::Race),
        (Some(Heard::Token), None) => None,
        (None, _) => moved.then_some(RefreshOutcome::Adopted),
    }
}

/// Returns the phase that an effect is counted as.
pub(super) fn phase(effect: &AttemptEffect) -> Option<RefreshPhase> {
    match effect {
        AttemptEffect::Slot => Some(RefreshPhase::Gate),
        AttemptEffect::Claim(_) | AttemptEffect::RepeatClaim => Some(RefreshPhase::Claim),
        AttemptEffect::Commit => Some(RefreshPhase::Commit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::VerdictBy,
        protocol::tests::{commit, id, row, verdict},
    };

    #[test]
    fn what_was_heard_and_what_became_of_it_are_one_outcome() {
        let read = row();
        let basis = (read.incarnation, read.generation);
        let (rotated, newer) = (commit(1, &read, 7), Row { generation: read.generation.next(), ..row() });
        let (kept, ended) = (commit(1, &read, 1), Row { verdict: verdict(VerdictBy::Idp), ..row() });
        let kept = Commit { token: None, ..kept };
        let became = |commit, resolution| Some((commit, resolution));
        let failed = Some(Heard::Failure(RefreshOutcome::Throttled));
        for (heard, answer, row, expected) in [
            (Some(Heard::Token), became(&rotated, Resolution::Own), &read, Some(RefreshOutcome::Rotated)),
            (Some(Heard::Token), became(&rotated, Resolution::Replace), &read, Some(RefreshOutcome::Rotated)),
            (Some(Heard::Token), became(&kept, Resolution::Own), &read, Some(RefreshOutcome::Kept)),
            (Some(Heard::Token), became(&rotated, Resolution::MovedOn), &newer, Some(RefreshOutcome::Race)),
            (Some(Heard::Token), became(&rotated, Resolution::Alt), &read, Some(RefreshOutcome::Race)),
            (Some(Heard::Token), None, &read, None),
            (Some(Heard::Refusal), None, &ended, Some(RefreshOutcome::User)),
            (Some(Heard::Refusal), None, &newer, Some(RefreshOutcome::Adopted)),
            (failed, None, &read, Some(RefreshOutcome::Throttled)),
            (None, None, &newer, Some(RefreshOutcome::Adopted)),
            (None, None, &Row { incarnation: id(99), ..row() }, Some(RefreshOutcome::Adopted)),
            (None, None, &read, None),
        ] {
            assert_eq!(tally(heard, answer, Some(row), basis), expected);
        }
        assert_eq!(tally(None, None, None, basis), None);
    }
}
