//! One request: who asks, for what, and everything that can be wrong with it before its handler runs.

use std::{pin::pin, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
    web::{Bytes, BytesMut, Payload},
};
use futures_util::{
    StreamExt as _,
    future::{Either, select},
};
use serde::de::DeserializeOwned;

use super::{
    api::{ASKED, Api},
    path,
    problem::{Problem, Speaks},
    routes::{Kind, Param, Route, TIMEOUT},
};
use crate::{
    Error, GetStatus,
    apikey::ApiKey,
    model::{BootTime, TokenKey},
};

/// A request on its way.
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) route: &'static Route,
    pub(super) id: String,
    /// Who asks; of an open route, and on a socket that needs no key, nobody.
    caller: Option<Arc<ApiKey>>,
    idp: Option<String>,
    key: Option<TokenKey>,
    /// What a proxy is asked for follows the path: the query is not the proxy's.
    pub(super) asked_behind: bool,
    query: Vec<(String, String)>,
    preconditions: Vec<(HeaderName, String)>,
    body: Bytes,
    /// When it had been read, by the boot-time clock.
    began: BootTime,
}

/// Longer bodies are refused. Two tokens and `extra` of the largest size fit.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// Who sends a body more slowly is refused.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// When the server stops, bodies are waited for no longer than this.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// How long callers wait unless they say otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a problem waits at most for what else there is to be said.
const AT_A_GLANCE: Duration = Duration::from_secs(1);
/// The longest wait that can be asked for.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

impl Call {
    pub(super) fn new(api: Api, route: &'static Route, id: &str) -> Self {
        let (caller, idp, key) = (None, None, None);
        let (query, preconditions, body) = (Vec::new(), Vec::new(), Bytes::new());
        let began = api.supervisor.clock().read().boot;
        Self { api, route, id: id.to_owned(), caller, idp, key, asked_behind: false, query, preconditions, body, began }
    }

    /// What is wrong comes out in this order, so that nobody learns what their key does not reach.
    pub(super) async fn admit(&mut self, request: &HttpRequest, payload: Payload) -> Result<(), Problem> {
        // For the audit, whoever asks.
        let names = self.read_names(request);
        if !self.route.scopes.is_empty() && !self.api.trusting {
            let caller = presented(request).and_then(|presented| {
                self.api.keys.find(presented).ok_or_else(|| Problem::bad_token("this is no API key"))
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
        self.read_preconditions(request)?;
        if self.route.changes() {
            self.body = self.read_body(request, payload).await?;
            self.began = self.api.supervisor.clock().read().boot;
        }
        Ok(())
    }

    /// The names in the path, from its end (what is before belongs to the application that we are mounted in), and
    /// the query, unless it is that of somebody who asks a proxy.
    fn read_names(&mut self, request: &HttpRequest) -> Result<(), &'static str> {
        let asked = request.match_info().get(ASKED);
        self.asked_behind = asked.is_some();
        if asked.is_none() {
            self.query = path::parameters(request.query_string())?;
        }
        let behind = asked.map_or(0, |asked| asked.split('/').count());
        let given = request.path().rsplit('/').skip(behind).zip(self.route.path.rsplit('/'));
        let segment = |name| given.clone().find(|(_, template)| *template == name).map(|(raw, _)| raw);
        let idp = segment("{idp}").map(path::decode).transpose()?;
        let user = segment("{user}").map(path::user).transpose()?;
        if let (Some(idp), Some(user)) = (&idp, user) {
            let key = TokenKey::at(idp).user(user).account(self.parameter("account").unwrap_or_default());
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

    /// Whether the caller's key is what it was when the request came.
    pub(super) fn is_still_known(&self) -> bool {
        self.caller().is_none_or(|caller| self.api.keys.has(caller))
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

    /// A precondition that cannot be read, or that nobody looks at, must not look as if it held.
    fn read_preconditions(&mut self, request: &HttpRequest) -> Result<(), Problem> {
        for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
            let mut given = request.headers().get_all(&name);
            let Some(value) = given.next() else { continue };
            if self.route.preconditions.iter().all(|known| known.name != name) {
                if self.route.changes() {
                    return Err(Problem::invalid("this request takes no If-Match or If-None-Match"));
                }
                continue;
            }
            let value = value.to_str().ok().filter(|_| given.next().is_none());
            let value = value.ok_or_else(|| Problem::invalid("give If-Match or If-None-Match once, in ASCII"))?;
            self.preconditions.push((name, value.to_owned()));
        }
        Ok(())
    }

    /// The problem with what is known of the grant, to a caller whose key reaches it and who has that much time left.
    pub(super) async fn tell_more(&self, key: &TokenKey, problem: Problem, left: Duration) -> Problem {
        let supervisor = &self.api.supervisor;
        let status = match problem.speaks() {
            Speaks::NotOfIt => return problem,
            Speaks::InHaste => None,
            // Its actor has just answered and knows it by heart.
            Speaks::AtLength => supervisor.call(GetStatus::new(key).timeout(left.min(AT_A_GLANCE))).await.ok(),
        };
        problem.about(status.as_ref(), supervisor.cached(key).as_ref())
    }

    async fn read_body(&self, request: &HttpRequest, mut payload: Payload) -> Result<Bytes, Problem> {
        let declared = request.headers().get(header::CONTENT_LENGTH);
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
        let clock = self.api.supervisor.clock();
        let stopping = async {
            self.api.drained().await;
            clock.sleep(LAST_BYTES).await;
        };
        let patience = async {
            match select(pin!(clock.sleep(BODY_WITHIN)), pin!(stopping)).await {
                Either::Left(_) => Problem::too_slow(),
                Either::Right(_) => Error::ShutDown.into(),
            }
        };
        match select(pin!(reading), pin!(patience)).await {
            Either::Left((read, _)) => read?,
            Either::Right((problem, _)) => return Err(problem),
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

    /// The grant that the path names, if it names one.
    pub(super) fn named(&self) -> Option<&TokenKey> {
        self.key.as_ref()
    }

    /// The identity provider and the user that the request is about, whatever they are, for the audit.
    pub(super) fn about(&self) -> (Option<&str>, Option<&str>) {
        let user = self.key.as_ref().map(TokenKey::user).or_else(|| self.parameter("user"));
        (self.idp.as_deref(), user)
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

    /// The precondition of this name (RFC 9110, 13.1), if the request has it.
    pub(super) fn precondition(&self, name: &HeaderName) -> Option<&str> {
        self.preconditions.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// What is left of the time that the caller gives it.
    pub(super) fn left(&self) -> Result<Duration, Problem> {
        Ok(self.left_of(self.seconds(&TIMEOUT)?.unwrap_or(PATIENCE)))
    }

    /// What is left of this time, which began when the request had been read.
    pub(super) fn left_of(&self, time: Duration) -> Duration {
        (self.began + time).since(self.api.supervisor.clock().read().boot)
    }
}

fn defect() -> Problem {
    Error::Internal("a handler asks for what its path does not name").into()
}

/// The API key that the request shows.
fn presented(request: &HttpRequest) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send Authorization: Bearer and an API key");
    let header = request.headers().get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim_start()) } else { Err(missing()) }
}
