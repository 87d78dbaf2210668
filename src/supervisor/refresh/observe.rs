//! A response, reported to the provider's gate.

use std::time::Duration;

use super::ports::Ports;
use crate::{
    idp::{Meaning, OPERATOR_BACKOFF, Observation, ResponseOutcome, SHORTEST_DELAY, Slot, delay},
    model::{Row, TokenKey, WallTime},
    supervisor::{jitter::random, provider::Provider},
};

/// Reports to the gate what a response says of the provider, and logs a failure: once, and here. Returns when to retry, if
/// there is no token.
pub(super) fn observe(
    ports: &Ports,
    key: &TokenKey,
    provider: &Provider,
    slot: Slot,
    row: &Row,
    sent_before: bool,
    outcome: &ResponseOutcome,
) -> WallTime {
    let (now, login, who) = (ports.clock.read(), slot.client_index(), key.stable_hash());
    let (notices, other_secret) = slot.report(Observation::of(outcome, sent_before), who, now, random());
    if let ResponseOutcome::Refreshed(answer) = outcome {
        ports.providers.report_oddities(key.idp(), provider, &answer.oddities);
    }
    let failure = outcome.failure();
    ports.providers.announce(key.idp(), notices, failure);
    let Some(failure) = failure else { return now.wall };
    // What concerns the provider must not name this user.
    provider.gate.record_error(&failure.evidence.without_description(), now);
    tracing::warn!(
        grant.id = row.grant_id,
        idp = key.idp(),
        idp.status = failure.evidence.status,
        idp.code = failure.evidence.code,
        idp.detail = failure.evidence.detail,
        idp.request_id = failure.evidence.request_id,
        "a refresh brought no access token"
    );
    if let Some(description) = &failure.evidence.description {
        tracing::debug!(grant.id = row.grant_id, idp = key.idp(), description, "the provider describes the failure");
    }
    let wait = if other_secret {
        SHORTEST_DELAY
    } else if let Some(closed) = provider.gate.closed_to(login, who, now) {
        closed.wait
    } else if failure.meaning == Meaning::OperatorFault {
        operator_delay(row)
    } else {
        delay(failures(row) + 1, failure.retry_after, random())
    };
    now.wall + wait
}

/// The time until a retry where only an operator can help.
pub(super) fn operator_delay(row: &Row) -> Duration {
    OPERATOR_BACKOFF.half_jittered(failures(row) + 1, random())
}

/// The failures before this one.
fn failures(row: &Row) -> u32 {
    row.last_error.as_ref().map_or(0, |error| error.failures)
}
