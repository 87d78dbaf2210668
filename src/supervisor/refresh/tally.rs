//! What an attempt came to, as it is counted.

use crate::{
    idp::{self, Meaning},
    model::{Generation, Id, Row},
    protocol::{Commit, attempt::AttemptEffect, resolve::Resolution},
    supervisor::metrics::{Outcome, Phase},
};

/// What was heard, as far as that decides.
#[derive(Clone, Copy)]
pub(super) enum Heard {
    /// A token: its commit tells the rest.
    Token,
    /// A refusal that counts unless somebody else has stored a newer token.
    Refusal,
    Failure(Outcome),
}

impl Heard {
    /// `stays` if the refresh token is not spent by being sent.
    pub(super) fn of(outcome: &idp::Outcome, stays: bool) -> Self {
        match outcome {
            idp::Outcome::Answered(_) => Self::Token,
            idp::Outcome::InvalidGrant(_) => Self::Refusal,
            idp::Outcome::Unknown(_) if stays => Self::Failure(Outcome::Transient),
            idp::Outcome::Unknown(_) => Self::Failure(Outcome::InDoubt),
            idp::Outcome::NotSpent(failure) => Self::Failure(match failure.meaning {
                Meaning::UserMustReconnect => Outcome::User,
                Meaning::OperatorFault => Outcome::Operator,
                Meaning::Throttled => Outcome::Throttled,
                Meaning::Race => Outcome::Race,
                Meaning::Transient => Outcome::Transient,
            }),
        }
    }
}

/// What the attempt came to, if to anything: from what was heard, the answer with what became of it, the row as it was
/// read last, and what whoever asked for the refresh had seen of it.
pub(super) fn tally(
    heard: Option<Heard>,
    answer: Option<(&Commit, Resolution)>,
    row: Option<&Row>,
    (incarnation, generation): (Id, Generation),
) -> Option<Outcome> {
    let moved = row.is_some_and(|row| row.incarnation != incarnation || row.generation > generation);
    match (heard, answer) {
        (Some(Heard::Failure(outcome)), _) => Some(outcome),
        (Some(Heard::Refusal), _) if row.is_some_and(|row| row.verdict.is_some()) => Some(Outcome::User),
        (Some(Heard::Refusal), _) => Some(Outcome::Adopted),
        (Some(Heard::Token), Some((commit, Resolution::Own | Resolution::Replace))) => {
            Some(if commit.child() == commit.parent { Outcome::Kept } else { Outcome::Rotated })
        }
        (Some(Heard::Token), Some(_)) => Some(Outcome::Race),
        (Some(Heard::Token), None) => None,
        (None, _) => moved.then_some(Outcome::Adopted),
    }
}

/// What carrying it out is counted as.
pub(super) fn phase(effect: &AttemptEffect) -> Option<Phase> {
    match effect {
        AttemptEffect::Slot => Some(Phase::Gate),
        AttemptEffect::Claim(_) | AttemptEffect::RepeatClaim => Some(Phase::Claim),
        AttemptEffect::Commit => Some(Phase::Commit),
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
        let failed = Some(Heard::Failure(Outcome::Throttled));
        for (heard, answer, row, expected) in [
            (Some(Heard::Token), became(&rotated, Resolution::Own), &read, Some(Outcome::Rotated)),
            (Some(Heard::Token), became(&rotated, Resolution::Replace), &read, Some(Outcome::Rotated)),
            (Some(Heard::Token), became(&kept, Resolution::Own), &read, Some(Outcome::Kept)),
            (Some(Heard::Token), became(&rotated, Resolution::MovedOn), &newer, Some(Outcome::Race)),
            (Some(Heard::Token), became(&rotated, Resolution::Alt), &read, Some(Outcome::Race)),
            (Some(Heard::Token), None, &read, None),
            (Some(Heard::Refusal), None, &ended, Some(Outcome::User)),
            (Some(Heard::Refusal), None, &newer, Some(Outcome::Adopted)),
            (failed, None, &read, Some(Outcome::Throttled)),
            (None, None, &newer, Some(Outcome::Adopted)),
            (None, None, &Row { incarnation: id(99), ..row() }, Some(Outcome::Adopted)),
            (None, None, &read, None),
        ] {
            assert_eq!(tally(heard, answer, Some(row), basis), expected);
        }
        assert_eq!(tally(None, None, None, basis), None);
    }
}
