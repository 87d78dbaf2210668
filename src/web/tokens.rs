//! Handing out tokens: one, many, and for proxies.

use std::{pin::pin, time::Duration};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderName, HeaderValue, IfNoneMatch},
};
use futures_util::{
    FutureExt as _,
    future::{Either, join_all, select},
};

use super::{
    audit,
    call::{Call, MAX_WAIT, PATIENCE},
    counters::TokenPath,
    etag,
    parameters::{MIN_TTL, TIMEOUT, WAIT},
    problem::Problem,
    response::{ApiResponse, Granted},
};
use crate::{
    Acquire, Error, Expiry, Token, TokenKey,
    api::{BatchBody, BatchItem, TokenBody, TokenResult, TokensBody},
    model::WallTime,
};

/// A batch with more items is refused.
const MAX_BATCH: usize = 100;

/// `GET .../token`: a valid token; none if the caller has it already.
pub(super) async fn token(call: &Call) -> Result<ApiResponse, Problem> {
    let nothing = IfNoneMatch::Items(Vec::new());
    let known = call.if_none_match().unwrap_or(&nothing);
    let wait = call.seconds(&WAIT).filter(|_| !etag::is_empty(known)).unwrap_or_default();
    let wish = TokenWish::of(call, PATIENCE.max(wait))?;
    let (first, origin) = timed(call, &wish).await;
    let token = match first {
        Ok(first) if etag::matches(known, first.generation()) && !wait.is_zero() => {
            another(call, &wish, known, wait).await
        }
        first => first.map_err(Problem::from),
    };
    count(call, wish.key, &token, origin);
    let token = token?;
    if etag::matches(known, token.generation()) {
        return Ok(ApiResponse::empty(StatusCode::NOT_MODIFIED).about(token.grant_id(), token.generation()));
    }
    let body = TokenBody::of(&token, call.api.supervisor.clock().now().into());
    Ok(ApiResponse::json(&body).about(token.grant_id(), token.generation()))
}

/// Which token the caller wants, and how long it waits for it.
struct TokenWish<'a> {
    key: &'a TokenKey,
    min_ttl: Duration,
    timeout: Duration,
}

impl<'a> TokenWish<'a> {
    fn of(call: &'a Call, patience: Duration) -> Result<Self, Problem> {
        let min_ttl = call.seconds(&MIN_TTL).unwrap_or_default();
        Ok(Self { key: call.key()?, min_ttl, timeout: call.seconds(&TIMEOUT).unwrap_or(patience) })
    }

    /// The command that acquires it within the time that is left.
    fn ask(&self, call: &Call) -> Acquire {
        Acquire::new(self.key).min_ttl(self.min_ttl).timeout(call.left_of(self.timeout))
    }
}

/// Where a token came from, and how long that took.
type TokenSource = Option<(TokenPath, Duration)>;

async fn timed(call: &Call, wish: &TokenWish<'_>) -> (Result<Token, Error>, TokenSource) {
    let supervisor = &call.api.supervisor;
    let began = supervisor.clock().fine();
    if wish.min_ttl.is_zero()
        && let Some(token) = supervisor.cached(wish.key)
    {
        return (Ok(token), Some((TokenPath::Snapshot, supervisor.clock().fine().since(began))));
    }
    let known = supervisor.published(wish.key);
    let mut asking = pin!(supervisor.call(wish.ask(call)));
    // A published token is ready at the first poll.
    let (token, at_once) = match asking.as_mut().now_or_never() {
        Some(token) => (token, true),
        None => (asking.await, false),
    };
    let took = supervisor.clock().fine().since(began);
    let origin = token.as_ref().ok().map(|token| match known {
        None => (TokenPath::Cold, took),
        Some(_) if at_once => (TokenPath::Snapshot, took),
        Some(known) if token.generation() > known => (TokenPath::Refresh, took),
        Some(_) => (TokenPath::Actor, took),
    });
    (token, origin)
}

/// Counts one request by its outcome. Names of providers that are not configured are not kept.
fn count(call: &Call, key: &TokenKey, token: &Result<Token, Problem>, origin: TokenSource) {
    if call.api.supervisor.has_idp(key.idp()) {
        let outcome = token.as_ref().err().map_or("ok", Problem::code);
        call.api.counters.count(key.idp(), outcome, origin.filter(|_| token.is_ok()));
    }
}

/// Waits for a token that the caller does not have, as long as the caller wants; then returns the current one.
async fn another(call: &Call, wish: &TokenWish<'_>, known: &IfNoneMatch, wait: Duration) -> Result<Token, Problem> {
    let supervisor = &call.api.supervisor;
    let clock = supervisor.clock();
    // The watch starts before the token is read again, so that no change is missed.
    let deadline = clock.sleep(call.left_of(wish.timeout));
    let mut watch = match select(pin!(supervisor.watch(wish.key)), pin!(deadline)).await {
        Either::Left((watch, _)) => watch?,
        // The token that the caller has may still be valid.
        Either::Right(_) => return Ok(supervisor.call(wish.ask(call)).await?),
    };
    loop {
        let token = supervisor.call(wish.ask(call)).await?;
        if !call.is_still_known() {
            return Err(Problem::bad_token("this API key is no longer valid"));
        }
        let left = call.left_of(wait.min(wish.timeout));
        if !etag::matches(known, token.generation()) || left.is_zero() || call.api.is_draining() {
            return Ok(token);
        }
        // It may expire, or fall below `min_ttl`, without a publication.
        let good = match token.expiry() {
            Expiry::At(time) => WallTime::from(time).since(clock.now()).saturating_sub(wish.min_ttl),
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

/// Least time between two looks at a token that is about to expire.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `POST /v1/tokens`: one result or problem for each item.
pub(super) async fn batch(call: &Call) -> Result<ApiResponse, Problem> {
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
    let now = call.api.supervisor.clock().now().into();
    let items = tokens.iter().map(|token| match token {
        Ok(token) => TokenResult::Token(TokenBody::of(token, now)),
        Err(problem) => TokenResult::Problem(problem.clone().of(&call.id).into_body()),
    });
    Ok(ApiResponse::json(&TokensBody { items: items.collect() }))
}

async fn one(call: &Call, key: &TokenKey, min_ttl: Duration, timeout: Duration) -> Result<Token, Problem> {
    let token = match key.validate().map_err(Problem::invalid).and_then(|()| call.may_reach(key)) {
        Ok(()) => {
            let (token, origin) = timed(call, &TokenWish { key, min_ttl, timeout }).await;
            let token = token.map_err(Problem::from);
            count(call, key, &token, origin);
            match token {
                Err(problem) => Err(call.with_context(key, problem, call.left_of(timeout)).await),
                token => token,
            }
        }
        Err(problem) => Err(problem),
    };
    let granted = |token: &Token| Granted { unmodified: false, generation: Some(token.generation()) };
    let outcome = token.as_ref().map(granted).map_err(Problem::code);
    let grant_id = token.as_ref().map_or_else(Problem::grant_id, |token| Some(token.grant_id()));
    audit::record(call, "token", (Some(key.idp()), Some(key.user())), grant_id, outcome);
    token
}

/// `GET /v1/authorize/...`: the token as the header that a proxy puts on the request it asks for.
pub(super) async fn authorize(call: &Call) -> Result<ApiResponse, Problem> {
    let wish = TokenWish::of(call, PATIENCE)?;
    let (token, origin) = timed(call, &wish).await;
    let token = token.map_err(Problem::from);
    count(call, wish.key, &token, origin);
    let token = token?;
    let value = HeaderValue::from_str(&token.authorization());
    let mut value = value.map_err(|_| Error::Internal("a stored token cannot be a header"))?;
    value.set_sensitive(true);
    // Envoy accepts 200 only.
    let status = if call.is_proxied { StatusCode::OK } else { StatusCode::NO_CONTENT };
    Ok(ApiResponse::empty(status)
        .header(header::AUTHORIZATION, value)
        .header(HeaderName::from_static("x-token-generation"), HeaderValue::from(token.generation().get()))
        .about(token.grant_id(), token.generation()))
}
