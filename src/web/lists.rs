//! Many grants: listed in pages, and the end of all of a user's.

use super::{
    answer::Answer,
    audit::{self, Granted},
    call::Call,
    problem::Problem,
    routes::{HELD, LIMIT, REVOKE},
    time::Moment,
    wire::{Ended, Items, Nothing, PageBody, StatusBody},
};
use crate::{Cursor, Error, Filter, Page, Revoke, Status, TokenKey};

/// `GET /v1/grants`: those that the caller's key reaches and the query asks for.
pub(super) async fn list(call: &Call) -> Result<Answer, Problem> {
    let filter = filter(call)?;
    let page = match idps(call)? {
        Some(idps) => at_each(call, filter, idps).await?,
        None => call.api.supervisor.list(filter).await?,
    };
    let items = page.items.iter().map(|(key, status)| StatusBody::of(key, status)).collect();
    Ok(Answer::json(&PageBody { items, next: page.next.map(|next| next.to_string()) }))
}

/// What the query asks for, within what the caller's key reaches.
fn filter(call: &Call) -> Result<Filter, Problem> {
    let mut filter = Filter::new();
    if let Some(user) = call.parameter("user") {
        if !call.caller().is_none_or(|caller| caller.reaches_user(user)) {
            return Err(Problem::forbidden("the API key does not reach this user"));
        }
        filter = filter.user(user);
    }
    let wanted = call.parameter("user_prefix").unwrap_or_default();
    let reached = call.caller().map_or("", |caller| caller.prefix());
    match (wanted.starts_with(reached), reached.starts_with(wanted)) {
        (true, _) => filter = filter.user_prefix(wanted),
        (false, true) => filter = filter.user_prefix(reached),
        (false, false) => return Err(Problem::forbidden("the API key does not reach these users")),
    }
    if let Some(account) = call.parameter("account") {
        filter = filter.account(account);
    }
    if let Some(states) = call.parameter("state") {
        for name in states.split(',') {
            filter = filter.state(name.parse().map_err(|text| Problem::invalid(format!("state {text}")))?);
        }
    }
    if call.parameter(HELD.name).is_some() {
        filter = filter.held(call.flag(&HELD)?);
    }
    if let Some(time) = call.parameter("expiring_before") {
        let time = Moment::Text(time.to_owned()).read().map_err(Problem::invalid)?;
        filter = filter.expiring_before(time);
    }
    if let Some(after) = call.parameter("after") {
        filter = filter.after(after.parse()?);
    }
    let limit = call.number(&LIMIT)?.and_then(|limit| u32::try_from(limit).ok());
    Ok(filter.limit(limit.unwrap_or(PAGE)))
}

/// How many grants a page holds unless it is said.
const PAGE: u32 = 100;

/// The identity providers to look at; `None` for all.
fn idps(call: &Call) -> Result<Option<Vec<String>>, Problem> {
    let reached = call.caller().and_then(|caller| caller.reached_idps());
    match call.parameter("idp") {
        Some(idp) if reached.is_none_or(|reached| reached.iter().any(|name| name == idp)) => {
            Ok(Some(vec![idp.to_owned()]))
        }
        Some(_) => Err(Problem::forbidden("the API key does not reach this identity provider")),
        None => Ok(reached.map(|reached| {
            let mut idps = reached.to_vec();
            // In the order of pages.
            idps.sort_unstable();
            idps.dedup();
            idps
        })),
    }
}

/// One page over several identity providers.
async fn at_each(call: &Call, filter: Filter, idps: Vec<String>) -> Result<Page, Problem> {
    let mut page = Page { items: Vec::new(), next: None };
    let full = filter.page_size();
    for idp in idps {
        let left = full.saturating_sub(u32::try_from(page.items.len()).unwrap_or(full));
        if left == 0 && full > 0 {
            page.next = page.items.last().map(|(key, _)| Cursor::after(key));
            return Ok(page);
        }
        let here = call.api.supervisor.list(filter.clone().idp(idp).limit(left)).await?;
        page.items.extend(here.items);
        if here.next.is_some() {
            page.next = here.next;
            return Ok(page);
        }
    }
    Ok(page)
}

/// `DELETE /v1/grants?user=U`: the end of all of a user's grants.
pub(super) async fn offboard(call: &Call) -> Result<Answer, Problem> {
    let user = call.parameter("user").ok_or_else(|| Problem::invalid("say whose grants: user is missing"))?;
    let reaches = call.caller().is_none_or(|caller| caller.reached_idps().is_none() && caller.reaches_user(user));
    if !reaches {
        // What is left of a user must not look like nothing.
        return Err(Problem::forbidden("the API key does not reach all of this user's grants"));
    }
    call.json::<Nothing>()?;
    let revoke = if call.flag(&REVOKE)? { Revoke::Yes } else { Revoke::No };
    let tell = |key: &TokenKey, ended: &Result<Status, Error>| {
        let outcome = ended.as_ref().map(|status| Granted { unmodified: false, generation: Some(status.generation) });
        audit::tell(call, "disconnect", Some(key.idp()), Some(user), outcome.map_err(Error::code));
    };
    let ended = call.api.supervisor.disconnect_each(user, revoke, tell).await?;
    let mut items = Vec::with_capacity(ended.len());
    for (key, ended) in &ended {
        let ended = match ended {
            Ok(status) => Ok(status),
            Err(error) => Err(call.tell_more(key, error.clone().into(), call.left()?).await.of(&call.id)),
        };
        items.push(Ended::of(key, ended));
    }
    Ok(Answer::json(&Items { items }))
}
