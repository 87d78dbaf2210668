//! One request: who asks, for what, and everything that can be wrong with it before its handler runs.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    http::{Method, header},
    web::{Bytes, BytesMut, Payload},
};
use futures_util::{
    StreamExt as _,
    future::{Either, select},
};
use serde::de::DeserializeOwned;

use super::{
    answer::Answer,
    api::Api,
    audit, guard, path,
    problem::{Problem, Speaks, request_id},
    routes::{Kind, Param, Route},
};
use crate::{GetStatus, apikey::ApiKey, model::TokenKey};

/// A request on its way.
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) request: HttpRequest,
    pub(super) route: &'static Route,
    pub(super) id: String,
    /// Who asks; of an open route, and on a socket that needs no key, nobody.
    caller: Option<Arc<ApiKey>>,
    idp: Option<String>,
    key: Option<TokenKey>,
    query: Vec<(String, String)>,
    body: Bytes,
}

/// Longer bodies are refused. Two tokens and `extra` of the largest size fit.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// Who sends a body more slowly is refused.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long a problem waits at most for what else there is to be said.
const AT_A_GLANCE: Duration = Duration::from_secs(1);
/// The longest wait that can be asked for.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

/// Answers one request to a path at which `routes` are, one for each method.
pub(super) async fn answer(api: Api, routes: &'static [Route], request: HttpRequest, payload: Payload) -> HttpResponse {
    let id = request_id();
    match serve(api, routes, request, payload, &id).await {
        Ok(answer) => answer.respond(&id),
        Err(problem) => problem.of(&id).error_response(),
    }
}

async fn serve(
    api: Api,
    routes: &'static [Route],
    request: HttpRequest,
    payload: Payload,
    id: &str,
) -> Result<Answer, Problem> {
    guard::check(&request)?;
    let Some(route) = routes.iter().find(|route| route.method == *request.method()) else {
        let methods: Vec<_> = routes.iter().map(|route| route.method.as_str()).collect();
        return Err(if methods.is_empty() { Problem::no_route() } else { Problem::wrong_method(methods.join(", ")) });
    };
    let (caller, idp, key) = (None, None, None);
    let (query, body) = (Vec::new(), Bytes::new());
    let mut call = Call { api, request, route, id: id.to_owned(), caller, idp, key, query, body };
    let answer = match call.admit(payload).await {
        Ok(()) => match ((route.handler)(&call).await, &call.key) {
            (Err(problem), Some(key)) => Err(call.tell_more(key, problem).await),
            (answer, _) => answer,
        },
        Err(problem) => Err(problem),
    };
    if let (Some(action), Some(idp)) = (route.audit, &call.idp) {
        audit::tell(&call, action, idp, call.key.as_ref(), answer.as_ref().map(Answer::granted));
    }
    answer
}

impl Call {
    /// What is wrong comes out in this order, so that nobody learns what their key does not reach.
    async fn admit(&mut self, payload: Payload) -> Result<(), Problem> {
        // For the audit, whoever asks.
        let names = self.read_names();
        if !self.route.scopes.is_empty() && !self.api.trusting {
            let caller = presented(&self.request).and_then(|presented| {
                self.api.keys.find(presented).ok_or_else(|| Problem::unauthorized("this is no API key"))
            })?;
            let caller = self.caller.insert(caller);
            if !caller.has_any(self.route.scopes) {
                let scopes: Vec<_> = self.route.scopes.iter().map(|scope| scope.as_str()).collect();
                return Err(Problem::forbidden(format!("the API key needs the scope {}", scopes.join(" or "))));
            }
        }
        names.map_err(Problem::invalid)?;
        self.reach()?;
        self.check_query()?;
        if self.route.method != Method::GET {
            self.body = self.read_body(payload).await?;
        }
        Ok(())
    }

    /// The names in the path, from its end (what is before belongs to the application that we are mounted in), and
    /// the query.
    fn read_names(&mut self) -> Result<(), &'static str> {
        self.query = path::parameters(self.request.query_string())?;
        let path = self.request.path();
        let given = path.rsplit('/').zip(self.route.path.rsplit('/'));
        let segment = |name| given.clone().find(|(_, template)| *template == name).map(|(raw, _)| raw);
        let idp = segment("{idp}").map(path::decode).transpose()?;
        let user = segment("{user}").map(path::user).transpose()?;
        if let (Some(idp), Some(user)) = (&idp, user) {
            let key = TokenKey::new(user, idp).account(self.parameter("account").unwrap_or_default());
            key.validate()?;
            self.key = Some(key);
        }
        self.idp = idp;
        Ok(())
    }

    /// Whether the caller's key reaches what the path names.
    fn reach(&self) -> Result<(), Problem> {
        if let Some(key) = &self.key {
            return self.may_reach(key);
        }
        if let Some(idp) = &self.idp {
            let caller = self.caller.as_ref();
            if !caller.is_none_or(|caller| caller.reaches_idp(idp) && caller.prefix().is_empty()) {
                return Err(Problem::forbidden("the API key does not reach all of this identity provider"));
            }
        }
        Ok(())
    }

    /// Whether the caller's key reaches this grant.
    pub(super) fn may_reach(&self, key: &TokenKey) -> Result<(), Problem> {
        if self.caller.as_ref().is_none_or(|caller| caller.reaches(key)) {
            Ok(())
        } else {
            Err(Problem::forbidden("the API key does not reach this grant"))
        }
    }

    fn check_query(&self) -> Result<(), Problem> {
        for (index, (name, _)) in self.query.iter().enumerate() {
            match self.route.query.iter().find(|param| param.name == name) {
                Some(param) => match param.kind {
                    Kind::Number(..) => drop(self.number(param)?),
                    Kind::Flag => drop(self.flag(param)?),
                    Kind::Text(_) => {}
                },
                None => {
                    let names: Vec<_> = self.route.query.iter().map(|param| param.name).collect();
                    return Err(Problem::invalid(format!("unknown parameter; known here: {}", names.join(", "))));
                }
            }
            if self.query[..index].iter().any(|(before, _)| before == name) {
                return Err(Problem::invalid("a parameter is given twice"));
            }
        }
        Ok(())
    }

    /// The problem with what is known of the grant, to a caller whose key reaches it.
    pub(super) async fn tell_more(&self, key: &TokenKey, problem: Problem) -> Problem {
        let supervisor = &self.api.supervisor;
        let status = match problem.speaks() {
            Speaks::NotOfIt => return problem,
            Speaks::InHaste => None,
            // Its actor has just answered and knows it by heart.
            Speaks::AtLength => supervisor.call(GetStatus::new(key).timeout(AT_A_GLANCE)).await.ok(),
        };
        problem.about(status.as_ref(), supervisor.cached(key).as_ref())
    }

    async fn read_body(&self, mut payload: Payload) -> Result<Bytes, Problem> {
        let declared = self.request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > MAX_BODY) {
            return Err(Problem::too_large());
        }
        let mut body = BytesMut::new();
        let reading = async {
            while let Some(chunk) = payload.next().await {
                let chunk = chunk.map_err(|_| Problem::invalid("the body broke off"))?;
                if body.len() + chunk.len() > MAX_BODY {
                    return Err(Problem::too_large());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        let patience = self.api.supervisor.clock().sleep(BODY_WITHIN);
        match select(Box::pin(reading), Box::pin(patience)).await {
            Either::Left((read, _)) => read?,
            Either::Right(_) => return Err(Problem::invalid("the body came too slowly")),
        }
        Ok(body.freeze())
    }

    /// The grant that the path names.
    pub(super) fn key(&self) -> Result<&TokenKey, Problem> {
        self.key.as_ref().ok_or_else(defect)
    }

    /// The identity provider that the path names.
    pub(super) fn idp(&self) -> Result<&str, Problem> {
        self.idp.as_deref().ok_or_else(defect)
    }

    /// Who asks, for the audit.
    pub(super) fn caller(&self) -> Option<&ApiKey> {
        self.caller.as_deref()
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a number.
    pub(super) fn number(&self, param: &Param) -> Result<Option<u64>, Problem> {
        let (Some(text), Kind::Number(least, most)) = (self.parameter(param.name), param.kind) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| Problem::invalid(format!("{}: {}", param.name, param.about)))
    }

    /// A parameter that is a number of seconds.
    pub(super) fn seconds(&self, param: &Param) -> Result<Option<Duration>, Problem> {
        Ok(self.number(param)?.map(Duration::from_secs))
    }

    /// A parameter that is true or false; false unless given.
    pub(super) fn flag(&self, param: &Param) -> Result<bool, Problem> {
        match self.parameter(param.name) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("{} must be true or false", param.name))),
        }
    }

    /// The body as a JSON object; an empty one is `{}`. What is wrong is told by its place: its text may be a secret.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        // Serde would take a list for an object.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::invalid("the body is no JSON object: see openapi.json"));
        }
        serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let about = match error.classify() {
                serde_json::error::Category::Data => "has a field that is unknown, missing or of another type",
                _ => "is not JSON",
            };
            Problem::invalid(format!("the body {about} (line {line}, column {column}): see openapi.json"))
        })
    }

    /// One header, if it is given and text.
    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }
}

fn defect() -> Problem {
    crate::Error::Internal("a handler asks for what its path does not name").into()
}

/// The API key that the request shows.
fn presented(request: &HttpRequest) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send Authorization: Bearer and an API key");
    let header = request.headers().get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim_start()) } else { Err(missing()) }
}
