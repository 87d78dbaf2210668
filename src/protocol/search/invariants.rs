//! The invariants, with the protocol's numbers.
//!
//! The fifth, that generations never decrease, is checked where a row is written (`ModelWorld::apply`); that no
//! revocation ends a connected grant is checked where the revocation reaches the provider.

use std::rc::Rc;

use super::{
    idp::{ModelResponse, Request, ReusePolicy, TokenIndex, token},
    world::{ModelWorld, Setting},
};
use crate::protocol::Commit;

/// Returns the invariant that a state breaks.
pub(super) fn broken(world: &ModelWorld, setting: &Setting) -> Option<String> {
    nothing_delivered_is_lost(world).or_else(|| no_hidden_doubt(world, setting))
}

/// 1: no two requests with the same refresh token are in flight; within a grace a second one is harmless. Where a token can be
/// sent again until its successor is used, a response that is on its way has not been used either.
pub(super) fn second_request(world: &ModelWorld, sent: TokenIndex, setting: &Setting) -> Option<String> {
    if setting.kind == ReusePolicy::NotRotating {
        return None;
    }
    let mut in_flight = world.idp.requests.iter().filter(|other| {
        let in_grace = setting.kind.has_grace() && world.now < other.written + setting.rules.grace;
        let arrives = || setting.kind != ReusePolicy::RetrySafe && deliverable(world, other).is_some();
        other.token == sent && !in_grace && (world.processable(other, setting) || arrives())
    });
    let other = in_flight.next()?;
    Some(format!("1: token {sent} is sent while attempt {}'s request with it is in flight", other.attempt))
}

/// No request is sent for a claim of a row on hold.
pub(super) fn sent_held(world: &ModelWorld, attempt: u8) -> Option<String> {
    let held = world.claimed_held & 1 << attempt != 0;
    held.then(|| format!("attempt {attempt} claimed while the grant was on hold, and sends"))
}

/// 2: a second request never invalidates a token that was delivered or still can be. Where the last response wins, that
/// of a later request replaces that of an earlier one; if it is lost, no client can prevent that.
pub(super) fn killed(before: &ModelWorld, after: &ModelWorld, request: &Request, setting: &Setting) -> Option<String> {
    let family = before.family();
    if before.row.tombstone.is_some() || before.idp.tokens[usize::from(request.token)].family != family {
        return None;
    }
    let outlived = setting.kind.replaces() && after.idp.families[usize::from(family)];
    let replaced = |at: TokenIndex| outlived && request.epoch > before.idp.tokens[usize::from(at)].epoch;
    let died = (0..before.idp.tokens.len() as TokenIndex).find(|&other| {
        let kept =
            held(before, other) || before.idp.requests.iter().any(|open| deliverable(before, open) == Some(other));
        other != request.token && before.idp.live(other) && !after.idp.live(other) && kept && !replaced(other)
    })?;
    Some(format!("2: the request of attempt {} with token {} invalidated token {died}", request.attempt, request.token))
}

/// 3: a delivered live token is in the row, in `alt`, in a journal or in the memory of an attempt.
fn nothing_delivered_is_lost(world: &ModelWorld) -> Option<String> {
    let lost = (0..world.idp.tokens.len() as TokenIndex).find(|&at| is_owed(world, at) && !held(world, at))?;
    Some(format!("3: token {lost} is live and was delivered, and nothing holds it"))
}

/// 4: a row without an intent never holds a spent token, or one that a request in flight may spend.
fn no_hidden_doubt(world: &ModelWorld, setting: &Setting) -> Option<String> {
    let row = &world.row;
    if row.intent.is_some()
        || row.verdict.is_some()
        || row.tombstone.is_some()
        || setting.kind == ReusePolicy::NotRotating
    {
        return None;
    }
    let current = world.current()?;
    let issued = &world.idp.tokens[usize::from(current)];
    // A token that was refused can be sent again: there is nothing left to lose.
    if issued.refused {
        return None;
    }
    if issued.spent.is_some() {
        return Some(format!("4: the row holds token {current}, which is spent, and has no intent"));
    }
    let mut requests = world.idp.requests.iter();
    let open = requests.find(|open| open.token == current && world.processable(open, setting))?;
    Some(format!("4: the row holds token {current} without intent, and attempt {} may still spend it", open.attempt))
}

/// Returns whether the token has to be kept: its grant exists, it was delivered, and nothing has excused its loss.
pub(super) fn is_owed(world: &ModelWorld, at: TokenIndex) -> bool {
    let issued = &world.idp.tokens[usize::from(at)];
    let stands = world.row.tombstone.is_none() && issued.family == world.family();
    stands && issued.delivered && !issued.excused && world.idp.live(at)
}

/// Returns whether a token is in the row, in `alt`, in a journal or in the memory of an attempt.
pub(super) fn held(world: &ModelWorld, at: TokenIndex) -> bool {
    let row = &world.row;
    let stored = row.refresh_token.iter().chain(row.alt.iter().map(|alt| &alt.token));
    let keeps = |commit: &Rc<Commit>| commit.token.as_ref().is_some_and(|held| token(held.fingerprint) == at);
    let in_memory =
        || world.processes.iter().filter_map(|process| process.attempt.as_ref()?.commit.as_ref()).any(keeps);
    stored.into_iter().any(|held| token(held.fingerprint) == at)
        || world.journals.iter().flat_map(|journal| &journal.entries).any(keeps)
        || in_memory()
}

/// Returns the token in a response that a live process can still receive.
fn deliverable(world: &ModelWorld, request: &Request) -> Option<TokenIndex> {
    match request.response {
        Some(ModelResponse::Token(token)) if world.listens(request) => Some(token),
        _ => None,
    }
}
