//! What everybody should know of an identity provider: logged for its operator, told to whoever listens.

use super::{
    core::Core,
    events::{EventKind, TokenEvent},
};
use crate::{
    error::Cause,
    idp::{Failure, Notice},
    model::Evidence,
};

impl Core {
    /// Announces what follows from an answer of the provider: with the failure that it was, if it was one.
    pub(super) fn announce(&self, idp: &str, notices: Vec<Notice>, failure: Option<&Failure>) {
        for notice in notices {
            let now = self.clock.now();
            log(idp, notice, failure);
            let kind = match notice {
                Notice::Paused { cause, wait } => EventKind::IdpPaused {
                    cause,
                    evidence: failure.map_or_else(|| Evidence::ours(cause), |failure| failure.evidence.clone()),
                    until: (now + wait).into(),
                },
                Notice::Recovered { cause } => EventKind::IdpRecovered { cause },
            };
            self.events.emit(TokenEvent::of_idp(idp, now, kind));
        }
    }
}

fn log(idp: &str, notice: Notice, failure: Option<&Failure>) {
    let evidence = failure.map(|failure| failure.evidence.to_string());
    match notice {
        Notice::Paused { cause: Cause::ClientRefused, .. } => tracing::error!(
            idp,
            evidence,
            "the identity provider refuses our client: refreshes are paused, no grant is touched; check client_id and client_secret"
        ),
        Notice::Paused { cause, .. } => tracing::error!(
            idp,
            evidence,
            cause = cause.as_str(),
            "the identity provider is in trouble: one request at a time looks whether it is over"
        ),
        Notice::Recovered { cause } => {
            tracing::info!(idp, cause = cause.as_str(), "the identity provider is well again")
        }
    }
}
