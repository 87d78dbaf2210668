//! Tokens are handed out: one, many, and for proxies.

use std::{pin::pin, time::Duration};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use futures_util::{
    FutureExt as _,
    future::{Either, join_all, select},
};

use super::{
    answer::Answer,
    audit::{self, Granted},
    call::{Call, MAX_WAIT, PATIENCE},
    etag::Known,
    metrics::Path,
    problem::Problem,
    routes::{MIN_TTL, TIMEOUT, WAIT},
    wire::{BatchAnswer, BatchBody, BatchItem, Items, TokenBody},
};
use crate::{Acquire, Error, Expiry, Token, TokenKey, model::WallTime};

/// More than this at once is refused.
const MAX_BATCH: usize = 100;

/// `GET .../token`: a valid token; none if the caller has it already.
pub(super) async fn token(call: &Call) -> Result<Answer, Problem> {
    let known = call.precondition(&header::IF_NONE_MATCH).map(Known::read).unwrap_or_default();
    let wait = call.seconds(&WAIT)?.filter(|_| !known.is_none()).unwrap_or_default();
    let wish = Wish::of(call, PATIENCE.max(wait))?;
    let (first, origin) = timed(call, wish.key, wish.ask(call)).await;
    let token = match first {
        Ok(first) if known.has(first.generation()) && !wait.is_zero() => another(call, &wish, &known, wait).await,
        first => first.map_err(Problem::from),
    };
    count(call, wish.key, &token, origin);
    let token = token?;
    if known.has(token.generation()) {
        return Ok(Answer::empty(StatusCode::NOT_MODIFIED).generation(token.generation()));
    }
    let body = TokenBody::of(&token, call.api.supervisor.clock().now());
    Ok(Answer::json(&body).generation(token.generation()))
}

/// Which token the caller wants, and how long it waits for it.
struct Wish<'a> {
    key: &'a TokenKey,
    min_ttl: Duration,
    timeout: Duration,
}

impl<'a> Wish<'a> {
    fn of(call: &'a Call, patience: Duration) -> Result<Self, Problem> {
        let min_ttl = call.seconds(&MIN_TTL)?.unwrap_or_default();
        Ok(Self { key: call.key()?, min_ttl, timeout: call.seconds(&TIMEOUT)?.unwrap_or(patience) })
    }

    /// It, within what is left of the time.
    fn ask(&self, call: &Call) -> Acquire {
        Acquire::new(self.key).min_ttl(self.min_ttl).timeout(call.left_of(self.timeout))
    }
}

/// Where a token came from, and how long that took.
type Origin = Option<(Path, Duration)>;

async fn timed(call: &Call, key: &TokenKey, ask: Acquire) -> (Result<Token, Error>, Origin) {
    let supervisor = &call.api.supervisor;
    let (began, known) = (supervisor.clock().read().boot, supervisor.published(key));
    let mut asking = pin!(supervisor.call(ask));
    // What is there is there at the first look.
    let (token, at_once) = match asking.as_mut().now_or_never() {
        Some(token) => (token, true),
        None => (asking.await, false),
    };
    let took = supervisor.clock().read().boot.since(began);
    let origin = token.as_ref().ok().map(|token| match known {
        None => (Path::Cold, took),
        Some(_) if at_once => (Path::Snapshot, took),
        Some(known) if token.generation() > known => (Path::Refresh, took),
        Some(_) => (Path::Actor, took),
    });
    (token, origin)
}

/// Counts one request by what came of it. Names that callers made up are not kept.
fn count(call: &Call, key: &TokenKey, token: &Result<Token, Problem>, origin: Origin) {
    if call.api.supervisor.has_idp(key.idp()) {
        let outcome = token.as_ref().err().map_or("ok", Problem::code);
        call.api.counters.asked(key.idp(), outcome, origin.filter(|_| token.is_ok()));
    }
}

/// Waits for a token that the caller does not know, as long as the caller wants; then the one there is.
async fn another(call: &Call, wish: &Wish<'_>, known: &Known, wait: Duration) -> Result<Token, Problem> {
    let supervisor = &call.api.supervisor;
    let clock = supervisor.clock();
    // Before the token is read again: no change is missed.
    let deadline = clock.sleep(call.left_of(wish.timeout));
    let mut watch = match select(pin!(supervisor.watch(wish.key)), pin!(deadline)).await {
        Either::Left((watch, _)) => watch?,
        // What it has may be good still.
        Either::Right(_) => return Ok(supervisor.call(wish.ask(call)).await?),
    };
    loop {
        let token = supervisor.call(wish.ask(call)).await?;
        if !call.is_still_known() {
            return Err(Problem::bad_token("this API key is good no more"));
        }
        let left = call.left_of(wait.min(wish.timeout));
        if !known.has(token.generation()) || left.is_zero() || call.api.is_draining() {
            return Ok(token);
        }
        // It may end, or fall below what is wanted, without anything being published.
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
            let asked = Acquire::new(key).min_ttl(min_ttl).timeout(call.left_of(timeout));
            let (token, origin) = timed(call, key, asked).await;
            let token = token.map_err(Problem::from);
            count(call, key, &token, origin);
            match token {
                Err(problem) => Err(call.tell_more(key, problem, call.left_of(timeout)).await),
                token => token,
            }
        }
        Err(problem) => Err(problem),
    };
    let granted = |token: &Token| Granted { unmodified: false, generation: Some(token.generation()) };
    let outcome = token.as_ref().map(granted).map_err(Problem::code);
    audit::tell(call, "token", Some(key.idp()), Some(key.user()), outcome);
    token
}

/// `GET /v1/authorize/...`: the token as the header that a proxy puts on the request it asks for.
pub(super) async fn authorize(call: &Call) -> Result<Answer, Problem> {
    let wish = Wish::of(call, PATIENCE)?;
    let (token, origin) = timed(call, wish.key, wish.ask(call)).await;
    let token = token.map_err(Problem::from);
    count(call, wish.key, &token, origin);
    let token = token?;
    let value = HeaderValue::from_str(&token.authorization());
    let mut value = value.map_err(|_| Error::Internal("a stored token is no header"))?;
    value.set_sensitive(true);
    // To Envoy nothing else is a yes.
    let status = if call.asked_behind { StatusCode::OK } else { StatusCode::NO_CONTENT };
    Ok(Answer::empty(status)
        .header(header::AUTHORIZATION, value)
        .header(HeaderName::from_static("x-token-generation"), HeaderValue::from(token.generation().get()))
        .generation(token.generation()))
}
