//! What an answer says of the identity provider, and when it is asked again.

use std::{sync::Arc, time::Duration};

use crate::{
    idp::{Meaning, OPERATOR_BACKOFF, Observation, Outcome, Slot, delay},
    model::{Row, Time, TokenKey},
    supervisor::core::{Core, Provider, random},
};

/// Tells the gate what the answer says of the provider, and logs a failure, once and here. When to try again, if
/// there is no token.
pub(super) fn learn(
    core: &Arc<Core>,
    key: &TokenKey,
    provider: &Provider,
    slot: Slot,
    row: &Row,
    outcome: &Outcome,
) -> Time {
    let (now, login, who) = (core.clock.read(), slot.client_index(), key.stable_hash());
    let (notices, other_secret) = slot.report(Observation::of(outcome), who, now, random());
    let failure = outcome.failure();
    core.announce(key.idp(), notices, failure);
    let Some(failure) = failure else { return now.wall };
    provider.gate.record_error(&failure.evidence, now);
    tracing::warn!(
        grant.id = row.grant_id,
        idp = key.idp(),
        idp.status = failure.evidence.status,
        idp.code = failure.evidence.code,
        idp.detail = failure.evidence.detail,
        idp.request_id = failure.evidence.request_id,
        "a refresh was not answered with a token"
    );
    let wait = if other_secret {
        delay(0, Some(Duration::ZERO), 0)
    } else if let Some(closed) = provider.gate.closed_to(login, now) {
        closed.wait
    } else if failure.meaning == Meaning::OperatorFault {
        OPERATOR_BACKOFF.half_jittered(failures(row) + 1, random())
    } else {
        delay(failures(row), failure.retry_after, random())
    };
    now.wall + wait
}

pub(super) fn failures(row: &Row) -> u32 {
    row.last_error.as_ref().map_or(0, |error| error.failures)
}
