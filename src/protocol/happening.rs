//! What a change of a row means to people and applications.
//!
//! Found in the transaction that writes the row, so that each transition has one teller, whoever dies meanwhile.

use crate::{
    code::EvidenceCode,
    model::{Evidence, Generation, LastError, Row, Time, Verdict, VerdictBy},
};

/// Something that happened to a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// The answer to a refresh was stored. A connect is no news to whoever asked for it.
    Renewed { generation: Generation },
    /// Only the user can help.
    ReconnectRequired { evidence: Evidence, by: VerdictBy },
    /// A refresh token was sent, and whether it was spent is not known.
    InDoubt { evidence: Evidence },
    /// Refreshes have failed for long. They go on.
    Failing { evidence: Evidence, since: Time },
    /// All trouble that was told is over.
    Recovered,
}

/// What follows for people from writing `after` over `before`: nothing, without an allocation, for most changes.
/// Nothing at all for a tombstone: whoever ended the grant waits for nothing.
pub(super) fn happened(before: Option<&Row>, after: &Row) -> Vec<Happening> {
    let Some(before) = before.filter(|_| after.tombstone.is_none()) else { return Vec::new() };
    let (was, is) = (Trouble::of(before), Trouble::of(after));
    let mut told = Vec::new();
    if before.incarnation == after.incarnation && before.commit != after.commit {
        told.push(Happening::Renewed { generation: after.generation });
    }
    if let (None, Some(Verdict { evidence, by, .. })) = (was.verdict, is.verdict) {
        told.push(Happening::ReconnectRequired { evidence: evidence.clone(), by: *by });
    }
    if !was.doubted && is.doubted {
        let said = after.last_error.as_ref().filter(|_| before.last_error != after.last_error);
        let evidence = said.map_or_else(|| Evidence::ours(EvidenceCode::Unanswered), |error| error.evidence.clone());
        told.push(Happening::InDoubt { evidence });
    }
    if let (None, Some(error)) = (was.failing, is.failing) {
        told.push(Happening::Failing { evidence: error.evidence.clone(), since: error.since() });
    }
    if was.any() && !is.any() {
        told.push(Happening::Recovered);
    }
    told
}

/// What of a row's state has been told, or is to be.
#[derive(Default)]
struct Trouble<'a> {
    verdict: Option<&'a Verdict>,
    doubted: bool,
    failing: Option<&'a LastError>,
}

impl<'a> Trouble<'a> {
    /// A verdict hides the rest, because nothing is sent under it; what is left when it goes is told then.
    fn of(row: &'a Row) -> Self {
        if row.tombstone.is_some() {
            return Self::default();
        }
        if row.verdict.is_some() {
            return Self { verdict: row.verdict.as_deref(), ..Self::default() };
        }
        let failing = row.last_error.as_deref().filter(|error| error.alerted);
        Self { verdict: None, doubted: doubted(row), failing }
    }

    fn any(&self) -> bool {
        self.verdict.is_some() || self.doubted || self.failing.is_some()
    }
}

/// Whether nobody may hear the answer to a request any more: a sender said so, or somebody sends the token again, or
/// the store went back. All of it lasts until the intent is gone, however often the token is sent again.
fn doubted(row: &Row) -> bool {
    row.intent.as_ref().filter(|intent| intent.generation == row.generation).is_some_and(|intent| {
        intent.recovered || row.lease.is_none() || intent.senders.iter().any(|sender| sender.closed)
    })
}
