//! The endpoints turn a complete request into a reply. Faults take effect here.

use std::sync::Arc;

use hyper::{
    Method, Response,
    body::Bytes,
    header::{HeaderValue, LOCATION, RETRY_AFTER},
    http::request::Parts,
};
use serde_json::json;
use tokio::sync::watch;

use super::{
    Fault, Standing,
    answer::{self, Body, SimulatedResponse},
    family::Ticket,
    request::Form,
    resource::{self, REPOSITORIES, USER},
    state::{HangRelease, IdpShared},
    timer::{self, Timer},
    watched::watched,
};
use crate::model::RefreshToken;

pub(super) const TOKEN: &str = "/oauth/token";
pub(super) const REVOKE: &str = "/oauth/revoke";
pub(super) const INTROSPECT: &str = "/oauth/introspect";

/// The reply to the client.
pub(super) enum EndpointReply {
    /// The connection is closed without a response.
    Close,
    Answer(Response<Body>),
    /// The connection is closed after this many bytes of the response.
    Cut(Response<Body>, usize),
}

pub(super) async fn handle(shared: Arc<IdpShared>, head: Parts, body: Bytes) -> EndpointReply {
    let form = Form::parse(&head.headers, &body);
    match (head.method, head.uri.path()) {
        (Method::POST, TOKEN) => token(shared, form, head.uri.query()).await,
        (Method::POST, REVOKE) => EndpointReply::Answer(revoke(&shared, &form).whole()),
        (Method::POST, INTROSPECT) => EndpointReply::Answer(introspect(&shared, &form).whole()),
        (Method::GET, path @ (USER | REPOSITORIES)) => {
            EndpointReply::Answer(resource::resource(&shared, path, &head.headers))
        }
        (_, TOKEN | REVOKE | INTROSPECT | USER | REPOSITORIES) => {
            EndpointReply::Answer(SimulatedResponse::html(405).whole())
        }
        _ => EndpointReply::Answer(SimulatedResponse::html(404).whole()),
    }
}

async fn token(shared: Arc<IdpShared>, form: Form, query: Option<&str>) -> EndpointReply {
    let fault = shared.lock().faults.take();
    // Both happen before the request appears in the log; see `timer::start`.
    let released = shared.released.subscribe();
    let timers = timer::start(&shared.clock, fault.as_ref()).await;
    let refresh_token = form.field("refresh_token").filter(|_| form.field("grant_type") == Some("refresh_token"));
    let ticket = shared.arrived(refresh_token, query, fault.as_ref());
    match (ticket, reply(shared.clone(), form, ticket, fault, timers, released).await) {
        (Some(ticket), EndpointReply::Answer(response)) => EndpointReply::Answer(watched(response, ticket, shared)),
        (_, reply) => reply,
    }
}

async fn reply(
    shared: Arc<IdpShared>,
    form: Form,
    ticket: Option<Ticket>,
    fault: Option<Fault>,
    mut timers: Vec<Timer>,
    mut released: watch::Receiver<HangRelease>,
) -> EndpointReply {
    match &fault {
        Some(Fault::DropBefore) => return EndpointReply::Close,
        Some(Fault::Status(status, retry_after)) => {
            let mut response = SimulatedResponse::html(*status).whole();
            if let Some(retry_after) = retry_after.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
                response.headers_mut().insert(RETRY_AFTER, retry_after);
            }
            return EndpointReply::Answer(response);
        }
        Some(Fault::Garbage) => return EndpointReply::Answer(SimulatedResponse::html(200).whole()),
        Some(Fault::Redirect) => {
            let mut response = SimulatedResponse::html(302).whole();
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/maintenance"));
            return EndpointReply::Answer(response);
        }
        Some(Fault::Error { status, code }) => {
            return EndpointReply::Answer(SimulatedResponse::json(*status, &json!({ "error": code })).whole());
        }
        Some(Fault::Answer(canned)) => return EndpointReply::Answer(answer::canned(canned)),
        Some(Fault::LateProcessing(_)) => {
            tokio::spawn(async move {
                for timer in timers {
                    timer.await;
                }
                process(&shared, &form, ticket, None);
            });
            return EndpointReply::Close;
        }
        Some(Fault::Delay(_)) => {
            for timer in timers.drain(..) {
                timer.await;
            }
        }
        Some(Fault::Hang) if abandoned(&mut released, ticket).await => return EndpointReply::Close,
        _ => {}
    }

    let page = process(&shared, &form, ticket, fault.as_ref());

    match fault {
        Some(Fault::DropAfter) => EndpointReply::Close,
        Some(Fault::StatusAfter(status)) => EndpointReply::Answer(SimulatedResponse::html(status).whole()),
        Some(Fault::AnswerAfter(canned)) => EndpointReply::Answer(answer::canned(&canned)),
        Some(Fault::CutAt(bytes)) => EndpointReply::Cut(page.whole(), bytes),
        Some(Fault::SlowBody(_)) => EndpointReply::Answer(page.slow(timers)),
        Some(Fault::CloseDelimited) => EndpointReply::Answer(page.close_delimited(usize::MAX)),
        Some(Fault::CloseDelimitedCutAt(bytes)) => EndpointReply::Answer(page.close_delimited(bytes)),
        Some(Fault::HangAfter) if abandoned(&mut released, ticket).await => EndpointReply::Close,
        _ => EndpointReply::Answer(page.whole()),
    }
}

/// Waits until the request may go on (returns false) or is dropped (true).
async fn abandoned(released: &mut watch::Receiver<HangRelease>, ticket: Option<Ticket>) -> bool {
    loop {
        // The sender lives as long as the server, so this cannot fail.
        let _ = released.changed().await;
        let HangRelease { go, abandoned } = *released.borrow();
        let below = |bound: usize| ticket.is_some_and(|ticket| ticket.number() < bound);
        if below(abandoned) || ticket.is_none() || below(go) {
            return below(abandoned);
        }
    }
}

/// Checks the client's credentials and processes the refresh.
fn process(shared: &IdpShared, form: &Form, ticket: Option<Ticket>, fault: Option<&Fault>) -> SimulatedResponse {
    let (profile, now) = (&shared.profile, shared.now());
    if !form.authenticated(profile) {
        return SimulatedResponse::wrong_client(profile);
    }
    let Some(ticket) = ticket else {
        let refresh = form.field("grant_type") == Some("refresh_token");
        let code = if refresh { "invalid_request" } else { "unsupported_grant_type" };
        return SimulatedResponse::error(profile, 400, code, "only refreshes are simulated");
    };
    let keep = fault == Some(&Fault::WithoutRefreshToken);
    let answer = shared.lock().ledger.process(ticket, keep, now);
    match answer {
        Ok(mut answer) => {
            if fault == Some(&Fault::LostRefreshToken) {
                answer.refresh = None;
            } else if profile.wire.repeats_refresh_token && !keep {
                answer.refresh = answer.refresh.or_else(|| form.field("refresh_token").map(RefreshToken::from));
            }
            let subject = match fault {
                Some(Fault::Subject(subject)) => Some(&**subject),
                _ => None,
            };
            let oddity = match fault {
                Some(Fault::Odd(oddity)) => Some(*oddity),
                _ => None,
            };
            SimulatedResponse::tokens(profile, &answer, subject, oddity)
        }
        Err(refusal) => SimulatedResponse::refused(profile, refusal),
    }
}

/// Revokes the family of a refresh or access token (RFC 7009); an unknown token is no error.
fn revoke(shared: &IdpShared, form: &Form) -> SimulatedResponse {
    let (profile, now) = (&shared.profile, shared.now());
    let mut state = shared.lock();
    state.revocations += 1;
    if let Some(status) = state.revocation_status {
        return SimulatedResponse::html(status);
    }
    if !form.authenticated(profile) {
        return SimulatedResponse::wrong_client(profile);
    }
    match form.field("token") {
        None => SimulatedResponse::error(profile, 400, "invalid_request", "token is missing"),
        Some(token) if state.ledger.revoke(token, now) => {
            SimulatedResponse::text(200, "application/json", String::new())
        }
        Some(_) => SimulatedResponse::text(200, "application/json", profile.wire.unknown_revoked.to_owned()),
    }
}

/// Reports whether a token is valid (RFC 7662), without spending it.
fn introspect(shared: &IdpShared, form: &Form) -> SimulatedResponse {
    let (profile, now) = (&shared.profile, shared.now());
    let mut state = shared.lock();
    state.introspections += 1;
    if let Some(status) = state.introspection_status {
        return SimulatedResponse::html(status);
    }
    if !form.authenticated(profile) {
        return SimulatedResponse::wrong_client(profile);
    }
    let active = form.field("token").is_some_and(|token| {
        state.ledger.standing(token, now) == Standing::Current || state.ledger.user_of(token, now).is_some()
    });
    SimulatedResponse::json(200, &json!({ "active": active }))
}
