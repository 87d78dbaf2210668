//! Tokens are handed out: one, many, and for proxies.

use std::{pin::pin, time::Duration};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use futures_util::{FutureExt as _, future::join_all};

use super::{
    answer::Answer,
    audit::{self, Granted},
    call::{Call, MAX_WAIT},
    etag,
    metrics::Path,
    problem::Problem,
    routes::{MIN_TTL, TIMEOUT, WAIT},
    wire::{BatchAnswer, BatchBody, BatchItem, Items, TokenBody},
};
use crate::{Acquire, Error, Expiry, Generation, Token, TokenKey, model::Time};

/// More than this at once is refused.
const MAX_BATCH: usize = 100;
/// How long callers wait unless they say otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET .../token`: a valid token; none if the caller has it already.
pub(super) async fn token(call: &Call) -> Result<Answer, Problem> {
    let known = call.header(header::IF_NONE_MATCH).map(etag::read).unwrap_or_default();
    let token = if known.is_empty() { acquire(call).await? } else { another(call, &known).await? };
    if known.contains(&token.generation()) {
        return Ok(Answer::empty(StatusCode::NOT_MODIFIED).generation(token.generation()));
    }
    let body = TokenBody::of(&token, call.api.supervisor.clock().now());
    Ok(Answer::json(&body).generation(token.generation()))
}

async fn acquire(call: &Call) -> Result<Token, Problem> {
    Ok(counted(call, call.key()?, asked(call)?).await?)
}

/// Asks, and counts what came of it. Names that callers made up are not kept.
async fn counted(call: &Call, key: &TokenKey, ask: Acquire) -> Result<Token, Error> {
    let (supervisor, counters) = (&call.api.supervisor, &call.api.counters);
    let (began, known) = (supervisor.clock().read().boot, supervisor.published(key));
    let mut asking = pin!(supervisor.call(ask));
    // What is there is there at the first look.
    let (token, at_once) = match asking.as_mut().now_or_never() {
        Some(token) => (token, true),
        None => (asking.await, false),
    };
    let took = supervisor.clock().read().boot.since(began);
    match &token {
        Ok(token) => {
            let path = match known {
                None => Path::Cold,
                Some(_) if at_once => Path::Snapshot,
                Some(known) if token.generation() > known => Path::Refresh,
                Some(_) => Path::Actor,
            };
            counters.asked(key.idp(), "ok", Some((path, took)));
        }
        Err(Error::UnknownIdp | Error::InvalidRequest(_)) => {}
        Err(error) => counters.asked(key.idp(), error.code(), None),
    }
    token
}

/// The token of the caller's wishes.
fn asked(call: &Call) -> Result<Acquire, Problem> {
    let (min_ttl, timeout) = (call.seconds(&MIN_TTL)?, call.seconds(&TIMEOUT)?);
    Ok(Acquire::new(call.key()?).min_ttl(min_ttl.unwrap_or_default()).timeout(timeout.unwrap_or(PATIENCE)))
}

/// Waits for a token that the caller does not know, as long as the caller wants; then the one there is.
async fn another(call: &Call, known: &[Generation]) -> Result<Token, Problem> {
    let wait = call.seconds(&WAIT)?.unwrap_or_default();
    if wait.is_zero() {
        return acquire(call).await;
    }
    let (supervisor, min_ttl) = (&call.api.supervisor, call.seconds(&MIN_TTL)?.unwrap_or_default());
    let clock = supervisor.clock();
    let end = clock.read().boot + wait;
    // From before the token is read: no change is missed.
    let mut watch = supervisor.watch(call.key()?).await?;
    loop {
        let token = acquire(call).await?;
        let now = clock.read();
        let left = end.since(now.boot);
        if !known.contains(&token.generation()) || left.is_zero() || call.api.is_draining() {
            return Ok(token);
        }
        // It may end, or fall below what is wanted, without anything being published.
        let good = match token.expiry() {
            Expiry::At(time) => Time::from(time).since(now.wall).saturating_sub(min_ttl),
            Expiry::Never | Expiry::Unknown => MAX_WAIT,
        };
        let pause = clock.sleep(left.min(good.max(LOOK_AGAIN)));
        tokio::select! {
            () = watch.changed() => {}
            () = pause => {}
            () = call.api.drained() => {}
        }
    }
}

/// A token that is about to end is not looked at in a hurry.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `POST /v1/tokens`: one result or problem for each item.
pub(super) async fn batch(call: &Call) -> Result<Answer, Problem> {
    let body: BatchBody = call.json()?;
    if body.items.len() > MAX_BATCH {
        return Err(Problem::invalid("items must be at most 100"));
    }
    let timeout = body.timeout.map_or(PATIENCE, |timeout| Duration::from_secs(timeout.0));
    if timeout > MAX_WAIT {
        return Err(Problem::invalid("timeout must be at most 60"));
    }
    let min_ttl = body.min_ttl.map_or(Duration::ZERO, |min_ttl| Duration::from_secs(min_ttl.0));
    let keys: Vec<_> = body.items.iter().map(BatchItem::key).collect();
    let asked = keys.iter().map(|key| one(call, key, min_ttl, timeout));
    let tokens = join_all(asked).await;
    let now = call.api.supervisor.clock().now();
    let items = tokens.iter().map(|token| match token {
        Ok(token) => BatchAnswer::Token(TokenBody::of(token, now)),
        Err(problem) => BatchAnswer::Problem(problem.clone().of(&call.id)),
    });
    Ok(Answer::json(&Items { items: items.collect() }))
}

async fn one(call: &Call, key: &TokenKey, min_ttl: Duration, timeout: Duration) -> Result<Token, Problem> {
    let token = match key.validate().map_err(Problem::invalid).and_then(|()| call.may_reach(key)) {
        Ok(()) => {
            let asked = Acquire::new(key).min_ttl(min_ttl).timeout(timeout);
            match counted(call, key, asked).await {
                Ok(token) => Ok(token),
                Err(error) => Err(call.tell_more(key, error.into()).await),
            }
        }
        Err(problem) => Err(problem),
    };
    let granted = |token: &Token| Granted { unmodified: false, generation: Some(token.generation()) };
    audit::tell(call, "token", key.idp(), Some(key), token.as_ref().map(granted));
    token
}

/// `GET /v1/authorize/...`: the token as the header that a proxy puts on the request it asks for.
pub(super) async fn authorize(call: &Call) -> Result<Answer, Problem> {
    let token = acquire(call).await?;
    let value = HeaderValue::from_str(&token.authorization());
    let mut value = value.map_err(|_| Error::Internal("a stored token is no header"))?;
    value.set_sensitive(true);
    Ok(Answer::empty(StatusCode::NO_CONTENT)
        .header(header::AUTHORIZATION, value)
        .header(HeaderName::from_static("x-token-generation"), HeaderValue::from(token.generation().get()))
        .generation(token.generation()))
}
