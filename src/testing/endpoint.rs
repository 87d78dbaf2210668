//! The endpoints: a complete request in, a reply out. Faults take effect here.

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
    answer::{self, Body, Page},
    family::Ticket,
    request::Form,
    resource::{self, REPOSITORIES, USER},
    state::{Release, Shared},
    timer::{self, Timer},
    watched::watched,
};
use crate::model::RefreshToken;

pub(super) const TOKEN: &str = "/oauth/token";
pub(super) const REVOKE: &str = "/oauth/revoke";
pub(super) const INTROSPECT: &str = "/oauth/introspect";

/// What goes back to the client.
pub(super) enum Reply {
    /// The connection is closed without an answer.
    Close,
    Answer(Response<Body>),
    /// The connection is closed after this many bytes of the answer.
    Cut(Response<Body>, usize),
}

pub(super) async fn handle(shared: Arc<Shared>, head: Parts, body: Bytes) -> Reply {
    let form = Form::parse(&head.headers, &body);
    match (head.method, head.uri.path()) {
        (Method::POST, TOKEN) => token(shared, form).await,
        (Method::POST, REVOKE) => Reply::Answer(revoke(&shared, &form).whole()),
        (Method::POST, INTROSPECT) => Reply::Answer(introspect(&shared, &form).whole()),
        (Method::GET, path @ (USER | REPOSITORIES)) => Reply::Answer(resource::resource(&shared, path, &head.headers)),
        (_, TOKEN | REVOKE | INTROSPECT | USER | REPOSITORIES) => Reply::Answer(Page::html(405).whole()),
        _ => Reply::Answer(Page::html(404).whole()),
    }
}

async fn token(shared: Arc<Shared>, form: Form) -> Reply {
    let fault = shared.lock().faults.take();
    // Both before the request can be seen in the log; see `timer::start`.
    let released = shared.released.subscribe();
    let timers = timer::start(&shared.clock, fault.as_ref()).await;
    let refresh_token = form.field("refresh_token").filter(|_| form.field("grant_type") == Some("refresh_token"));
    let ticket = shared.arrived(refresh_token, fault.as_ref());
    match (ticket, reply(shared.clone(), form, ticket, fault, timers, released).await) {
        (Some(ticket), Reply::Answer(response)) => Reply::Answer(watched(response, ticket, shared)),
        (_, reply) => reply,
    }
}

async fn reply(
    shared: Arc<Shared>,
    form: Form,
    ticket: Option<Ticket>,
    fault: Option<Fault>,
    mut timers: Vec<Timer>,
    mut released: watch::Receiver<Release>,
) -> Reply {
    match &fault {
        Some(Fault::DropBefore) => return Reply::Close,
        Some(Fault::Status(status, retry_after)) => {
            let mut response = Page::html(*status).whole();
            if let Some(retry_after) = retry_after.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
                response.headers_mut().insert(RETRY_AFTER, retry_after);
            }
            return Reply::Answer(response);
        }
        Some(Fault::Garbage) => return Reply::Answer(Page::html(200).whole()),
        Some(Fault::Redirect) => {
            let mut response = Page::html(302).whole();
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/maintenance"));
            return Reply::Answer(response);
        }
        Some(Fault::Error { status, code }) => {
            return Reply::Answer(Page::json(*status, &json!({ "error": code })).whole());
        }
        Some(Fault::Answer(canned)) => return Reply::Answer(answer::canned(canned)),
        Some(Fault::LateProcessing(_)) => {
            tokio::spawn(async move {
                for timer in timers {
                    timer.await;
                }
                process(&shared, &form, ticket, None);
            });
            return Reply::Close;
        }
        Some(Fault::Delay(_)) => {
            for timer in timers.drain(..) {
                timer.await;
            }
        }
        Some(Fault::Hang) if abandoned(&mut released, ticket).await => return Reply::Close,
        _ => {}
    }

    let page = process(&shared, &form, ticket, fault.as_ref());

    match fault {
        Some(Fault::DropAfter) => Reply::Close,
        Some(Fault::StatusAfter(status)) => Reply::Answer(Page::html(status).whole()),
        Some(Fault::AnswerAfter(canned)) => Reply::Answer(answer::canned(&canned)),
        Some(Fault::CutAt(bytes)) => Reply::Cut(page.whole(), bytes),
        Some(Fault::SlowBody(_)) => Reply::Answer(page.slow(timers)),
        Some(Fault::CloseDelimited) => Reply::Answer(page.close_delimited(usize::MAX)),
        Some(Fault::CloseDelimitedCutAt(bytes)) => Reply::Answer(page.close_delimited(bytes)),
        Some(Fault::HangAfter) if abandoned(&mut released, ticket).await => Reply::Close,
        _ => Reply::Answer(page.whole()),
    }
}

/// Resolves when the request is let go, or dropped (true).
async fn abandoned(released: &mut watch::Receiver<Release>, ticket: Option<Ticket>) -> bool {
    loop {
        // The sender lives as long as the server, so it cannot fail.
        let _ = released.changed().await;
        let Release { go, abandoned } = *released.borrow();
        let below = |bound: usize| ticket.is_some_and(|ticket| ticket.number() < bound);
        if below(abandoned) || ticket.is_none() || below(go) {
            return below(abandoned);
        }
    }
}

/// Does what the request asks for.
fn process(shared: &Shared, form: &Form, ticket: Option<Ticket>, fault: Option<&Fault>) -> Page {
    let (profile, now) = (&shared.profile, shared.now());
    if !form.authenticated(profile) {
        return Page::wrong_client(profile);
    }
    let Some(ticket) = ticket else {
        let refresh = form.field("grant_type") == Some("refresh_token");
        let code = if refresh { "invalid_request" } else { "unsupported_grant_type" };
        return Page::error(profile, 400, code, "only refreshes are simulated");
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
            Page::tokens(profile, &answer, subject)
        }
        Err(refusal) => Page::refused(profile, refusal),
    }
}

/// RFC 7009: the family of a refresh or access token ends; unknown tokens are no error.
fn revoke(shared: &Shared, form: &Form) -> Page {
    let (profile, now) = (&shared.profile, shared.now());
    let mut state = shared.lock();
    state.revocations += 1;
    if let Some(status) = state.revocation_status {
        return Page::html(status);
    }
    if !form.authenticated(profile) {
        return Page::wrong_client(profile);
    }
    match form.field("token") {
        None => Page::error(profile, 400, "invalid_request", "token is missing"),
        Some(token) if state.ledger.revoke(token, now) => Page::text(200, "application/json", String::new()),
        Some(_) => Page::text(200, "application/json", profile.wire.unknown_revoked.to_owned()),
    }
}

/// RFC 7662: whether a token is alive, without spending it.
fn introspect(shared: &Shared, form: &Form) -> Page {
    let (profile, now) = (&shared.profile, shared.now());
    if !form.authenticated(profile) {
        return Page::wrong_client(profile);
    }
    let state = shared.lock();
    let active = form.field("token").is_some_and(|token| {
        state.ledger.standing(token, now) == Standing::Current || state.ledger.user_of(token, now).is_some()
    });
    Page::json(200, &json!({ "active": active }))
}
