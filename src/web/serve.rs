//! Carries out a request. A read ends with its caller's connection; a change runs on the supervisor's own threads, so that
//! it is completed and audited even if the caller hangs up.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, ResponseError as _, http::ConnectionType, web::Payload};
use tracing::instrument::WithSubscriber as _;

use super::{
    Api, audit,
    call::Call,
    endpoint::{Endpoint, PROXIED},
    guard,
    name::RequestName,
    peer::Exchange,
    problem::Problem,
    response::ApiResponse,
    routes::{ApiRoute, Handler},
    slices::SlicedBody,
};
use crate::Error;

/// Responds to one request to the path of `routes`, which are one for each method.
pub(super) async fn respond(
    api: Arc<Api>,
    routes: &'static [ApiRoute],
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let (name, _active) = (RequestName::of(request.headers()), api.enter());
    let exchange = Exchange::begin(&request);
    let mut response = match serve(api, routes, &request, payload, &name).await {
        Ok(response) => response.respond(&name.id),
        Err(problem) => problem.of(&name.id).error_response(),
    };
    if exchange.as_ref().is_some_and(Exchange::has_unread_body) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response.map_body(|_, body| SlicedBody::of(body, exchange))
}

async fn serve(
    api: Arc<Api>,
    routes: &'static [ApiRoute],
    request: &HttpRequest,
    payload: Payload,
    name: &RequestName,
) -> Result<ApiResponse, Problem> {
    guard::check(&api, request)?;
    let of_a_proxy = request.match_info().get(PROXIED).is_some();
    let Some(route) = routes.iter().find(|route| of_a_proxy || route.endpoint.takes(request.method())) else {
        let methods: Vec<_> = routes.iter().map(|route| &route.endpoint).flat_map(Endpoint::methods).collect();
        return Err(if methods.is_empty() { Problem::no_route() } else { Problem::wrong_method(methods.join(", ")) });
    };
    let mut call = Call::new(api, &route.endpoint, name);
    if let Err(problem) = call.admit(request, payload).await {
        if problem.is_throttled() {
            return Err(problem);
        }
        return audited(&call, Err(problem));
    }
    if !route.endpoint.changes() {
        return carry_out(call, route.handler).await;
    }
    let (supervisor, active) = (call.api.supervisor.clone(), call.api.enter());
    let carried = async move {
        let _active = active;
        carry_out(call, route.handler).await
    };
    let carried = supervisor.spawn(carried.with_current_subscriber()).await;
    carried.unwrap_or_else(|ended| {
        let error = if ended.is_panic() { Error::Internal("a handler panicked") } else { Error::ShutDown };
        Err(error.into())
    })
}

async fn carry_out(call: Call, handler: Handler) -> Result<ApiResponse, Problem> {
    let response = match (handler(&call).await, call.named()) {
        (Err(problem), Some(key)) => Err(call.with_context(key, problem, call.left()).await),
        (response, _) => response,
    };
    audited(&call, response)
}

/// Writes the audit line; batch handlers write their own lines once they run.
fn audited(call: &Call, response: Result<ApiResponse, Problem>) -> Result<ApiResponse, Problem> {
    let (idp, user) = call.about();
    if let Some(action) = call.endpoint.audit
        && (idp.is_some() || response.is_err())
    {
        let grant_id = response.as_ref().map_or_else(Problem::grant_id, ApiResponse::grant_id);
        let outcome = response.as_ref().map(ApiResponse::granted).map_err(Problem::code);
        audit::record(call, action, (idp, user), grant_id, outcome);
    }
    response
}
