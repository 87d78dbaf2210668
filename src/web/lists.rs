//! Many grants: lists in pages, and offboarding a user.

use super::{
    audit,
    call::Call,
    parameters::{HELD, LIMIT, REVOKE},
    problem::Problem,
    response::ApiResponse,
};
use crate::{
    Cursor, Error, Filter, Page, Revoke, Status, TokenKey,
    api::{EmptyBody, GrantQuery, OffboardedBody, OffboardedGrant, PageBody, TimeInput},
};

/// `GET /v1/grants`: the grants that the query selects and the caller's key reaches.
pub(super) async fn list(call: &Call) -> Result<ApiResponse, Problem> {
    let filter = filter(call)?;
    let page = match idps(call)? {
        Some(idps) => at_each(call, filter, idps).await?,
        None => call.api.supervisor.list(filter).await?,
    };
    Ok(ApiResponse::json(&PageBody::from(page)))
}

/// The filter of the query, limited to what the caller's key reaches.
fn filter(call: &Call) -> Result<Filter, Problem> {
    let principal = call.principal();
    let text = |name| call.parameter(name).map(str::to_owned);
    let user = text("user");
    if !user.as_deref().is_none_or(|user| principal.reaches_user(user)) {
        return Err(Problem::forbidden("the API key does not reach this user"));
    }
    let (wanted, reached) = (call.parameter("user_prefix").unwrap_or_default(), principal.user_prefix());
    let user_prefix = match (wanted.starts_with(reached), reached.starts_with(wanted)) {
        (true, _) => wanted.to_owned(),
        (false, true) => reached.to_owned(),
        (false, false) => return Err(Problem::forbidden("the API key does not reach these users")),
    };
    let state = |name: &str| name.parse().map_err(|text| Problem::invalid(format!("state {text}")));
    let time = |time| TimeInput::Text(time).read().map_err(Problem::invalid);
    let query = GrantQuery {
        // Set for one provider after the other.
        idp: None,
        user,
        user_prefix: Some(user_prefix),
        account: text("account"),
        states: call
            .parameter("state")
            .into_iter()
            .flat_map(|all| all.split(','))
            .map(state)
            .collect::<Result<_, _>>()?,
        held: call.given_flag(&HELD),
        expiring_before: text("expiring_before").map(time).transpose()?,
        after: call.parameter("after").map(str::parse).transpose()?,
        limit: call.number(&LIMIT).and_then(|limit| u32::try_from(limit).ok()),
    };
    Ok(query.filter())
}

/// The identity providers to list; `None` for all.
fn idps(call: &Call) -> Result<Option<Vec<String>>, Problem> {
    let reached = call.principal().reached_idps();
    match call.parameter("idp") {
        Some(idp) if reached.is_none_or(|reached| reached.iter().any(|name| name == idp)) => {
            Ok(Some(vec![idp.to_owned()]))
        }
        Some(_) => Err(Problem::forbidden("the API key does not reach this identity provider")),
        None => Ok(reached.map(|reached| {
            let mut idps = reached.to_vec();
            // Pages are in the order of their names.
            idps.sort_unstable();
            idps.dedup();
            idps
        })),
    }
}

/// Lists one page over several identity providers.
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

/// `DELETE /v1/grants?user=U`: disconnects all grants of a user.
pub(super) async fn offboard(call: &Call) -> Result<ApiResponse, Problem> {
    let user = call
        .parameter("user")
        .ok_or_else(|| Problem::invalid("the parameter user is missing: name the user to offboard"))?;
    let principal = call.principal();
    let reaches = principal.reached_idps().is_none() && principal.reaches_user(user);
    if !reaches {
        // A grant out of reach would remain, and the response would not show it.
        return Err(Problem::forbidden("the API key does not reach all of this user's grants"));
    }
    call.json::<EmptyBody>()?;
    let revoke = if call.flag(&REVOKE) { Revoke::Yes } else { Revoke::No };
    let record = |key: &TokenKey, ended: &Result<Status, Error>| {
        audit::record_ended(call, "disconnect", key, ended);
    };
    let ended = call.api.supervisor.disconnect_each(user, revoke, record).await?;
    let mut items = Vec::with_capacity(ended.len());
    for (key, ended) in &ended {
        let ended = match ended {
            Ok(status) => Ok(status),
            Err(error) => {
                let problem = call.with_context(key, error.clone().into(), call.left()).await;
                Err(problem.of(&call.id).into_body())
            }
        };
        items.push(OffboardedGrant::of(key, ended));
    }
    Ok(ApiResponse::json(&OffboardedBody { items }))
}
