//! How a request is carried out: what only reads ends with its caller's connection; what changes something runs on the
//! supervisor's own threads, so that it is done and audited whoever hangs up.

use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web::Payload};
use tracing::instrument::WithSubscriber as _;

use super::{
    answer::Answer,
    api::{ASKED, Api},
    audit,
    call::Call,
    guard,
    problem::{Problem, request_id},
    routes::Route,
};
use crate::Error;

/// Answers one request to a path at which `routes` are, one for each method.
pub(super) async fn answer(api: Api, routes: &'static [Route], request: HttpRequest, payload: Payload) -> HttpResponse {
    let (id, _active) = (request_id(), api.enter());
    match serve(api, routes, &request, payload, &id).await {
        Ok(answer) => answer.respond(&id),
        Err(problem) => problem.of(&id).error_response(),
    }
}

async fn serve(
    api: Api,
    routes: &'static [Route],
    request: &HttpRequest,
    payload: Payload,
    id: &str,
) -> Result<Answer, Problem> {
    guard::check(&api, request)?;
    let of_a_proxy = request.match_info().get(ASKED).is_some();
    let Some(route) = routes.iter().find(|route| of_a_proxy || route.takes(request.method())) else {
        let methods: Vec<_> = routes.iter().flat_map(Route::methods).collect();
        return Err(if methods.is_empty() { Problem::no_route() } else { Problem::wrong_method(methods.join(", ")) });
    };
    let mut call = Call::new(api, route, id);
    if let Err(problem) = call.admit(request, payload).await {
        return told(&call, Err(problem));
    }
    if !route.changes() {
        return carry_out(call).await;
    }
    let (supervisor, active) = (call.api.supervisor.clone(), call.api.enter());
    let carried = async move {
        let _active = active;
        carry_out(call).await
    };
    let carried = supervisor.spawn(carried.with_current_subscriber()).await;
    carried.unwrap_or_else(|ended| {
        let error = if ended.is_panic() { Error::Internal("a handler panicked") } else { Error::ShutDown };
        Err(error.into())
    })
}

async fn carry_out(call: Call) -> Result<Answer, Problem> {
    let answer = match ((call.route.handler)(&call).await, call.named()) {
        (Err(problem), Some(key)) => Err(call.tell_more(key, problem, call.left().unwrap_or_default()).await),
        (answer, _) => answer,
    };
    told(&call, answer)
}

/// The audit hears of it. What is about many grants has told of each, if it came to that.
fn told(call: &Call, answer: Result<Answer, Problem>) -> Result<Answer, Problem> {
    let (idp, user) = call.about();
    if let Some(action) = call.route.audit
        && (idp.is_some() || answer.is_err())
    {
        audit::tell(call, action, idp, user, answer.as_ref().map(Answer::granted).map_err(Problem::code));
    }
    answer
}
