//! One request: its caller, its target, and every check before its handler runs.

use std::{
    borrow::Cow,
    fmt,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpRequest,
    http::header::{self, EntityTag, Header as _, IfNoneMatch},
    web::{Bytes, BytesMut, Payload},
};
use futures_util::{
    StreamExt as _,
    future::{Either, select},
};
use serde::Deserialize;

use super::{
    Api,
    endpoint::{Endpoint, PROXIED},
    name::RequestName,
    parameters::{ParameterValue, QueryParameter, TIMEOUT},
    path,
    peer::BodyRead,
    principal::Principal,
    problem::Problem,
    shed::ShedReason,
};
use crate::{
    By, Error, GetStatus,
    api::{GrantContext, time::rfc3339},
    apikey::ApiKey,
    model::{BootTime, TokenKey},
};

/// A request that is being checked or carried out.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) endpoint: &'static Endpoint,
    pub(super) id: String,
    pub(super) trace_id: Option<String>,
    principal: Principal,
    idp: Option<String>,
    key: Option<TokenKey>,
    /// Whether a path that a proxy was asked for follows the endpoint's: then the query is not for us.
    pub(super) is_proxied: bool,
    query: Vec<(String, String)>,
    /// The values of the query's flags and numbers.
    values: Vec<(&'static str, ParameterValue)>,
    if_match: Option<String>,
    if_none_match: Option<IfNoneMatch>,
    body: Bytes,
    /// When the request had been read, by the boot-time clock.
    began: BootTime,
}

/// Longer bodies are refused. Two tokens and `extra` of the largest size fit.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// A body that takes longer is refused.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Limit for a body once the server stops.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// The deadline of a request that sets none.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Limit for adding the state of the grant to a problem.
pub(super) const AT_A_GLANCE: Duration = Duration::from_secs(1);
/// The longest timeout that a request can set.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

impl Call {
    pub(super) fn new(api: Arc<Api>, endpoint: &'static Endpoint, name: &RequestName) -> Self {
        Self {
            began: api.supervisor.clock().read().boot,
            api,
            endpoint,
            id: name.id.clone(),
            trace_id: name.trace_id.clone(),
            principal: Principal::Anonymous,
            idp: None,
            key: None,
            is_proxied: false,
            query: Vec::new(),
            values: Vec::new(),
            if_match: None,
            if_none_match: None,
            body: Bytes::new(),
        }
    }

    /// Checks the request, in an order in which a caller learns nothing that its key does not reach.
    pub(super) async fn admit(&mut self, request: &HttpRequest, payload: Payload) -> Result<(), Problem> {
        // Read first: the audit line of a refused request has them.
        let names = self.read_names(request);
        if self.api.trusting {
            self.principal = Principal::LocalPeer;
        } else if !self.endpoint.scopes.is_empty() {
            let key = self.identify(request)?;
            let expired = key.expires_at.filter(|_| key.has_expired(self.now()));
            self.principal = Principal::Key(key);
            if let Some(end) = expired {
                return Err(Problem::bad_token(format!("this API key expired at {}: use a new one", rfc3339(end))));
            }
            if !self.principal.has_any(self.endpoint.scopes) {
                let scopes: Vec<_> = self.endpoint.scopes.iter().map(|scope| scope.as_str()).collect();
                return Err(Problem::forbidden(format!("the API key needs the scope {}", scopes.join(" or "))));
            }
        }
        names.map_err(Problem::invalid)?;
        self.check_reach()?;
        self.read_query()?;
        self.read_preconditions(request)?;
        if self.endpoint.changes() {
            self.body = self.read_body(request, payload).await?;
            self.began = self.api.supervisor.clock().read().boot;
            let author = By::Http(self.principal.name().into());
            let api = Arc::make_mut(&mut self.api);
            api.supervisor = api.supervisor.acting_as(author);
        }
        Ok(())
    }

    /// Finds the API key in the request.
    fn identify(&self, request: &HttpRequest) -> Result<Arc<ApiKey>, Problem> {
        let found = presented(request).and_then(|presented| {
            self.api.keys.find(presented).ok_or_else(|| Problem::bad_token("this is not a valid API key"))
        });
        let Api { throttle, shed, .. } = &*self.api;
        match found {
            Ok(key) => match throttle.used(&key, self.began) {
                Ok(()) => Ok(key),
                Err(wait) => {
                    shed.count(ShedReason::KeyRate, peer(request), Some(&key.name));
                    Err(Problem::throttled("this API key is used more often than its requests_per_second", wait))
                }
            },
            Err(problem) => match throttle.refused(request.peer_addr().map(|peer| peer.ip()), self.began) {
                Ok(()) => Err(problem),
                Err(wait) => {
                    shed.count(ShedReason::WrongKey, peer(request), None);
                    Err(Problem::throttled("too many requests without a valid API key come from this address", wait))
                }
            },
        }
    }

    /// Reads the names in the path, from its end (its start belongs to the application in which the API is mounted), and
    /// the query, unless it belongs to a request that a proxy received.
    fn read_names(&mut self, request: &HttpRequest) -> Result<(), &'static str> {
        let asked = request.match_info().get(PROXIED);
        self.is_proxied = asked.is_some();
        if asked.is_none() {
            self.query = path::parameters(request.query_string())?;
        }
        let behind = asked.map_or(0, |asked| asked.split('/').count());
        let given = request.path().rsplit('/').skip(behind).zip(self.endpoint.path.rsplit('/'));
        let segment = |name| given.clone().find(|(_, template)| *template == name).map(|(raw, _)| raw);
        let idp = segment("{idp}").map(path::decode).transpose()?;
        let user = segment("{user}").map(path::user).transpose()?;
        if let (Some(idp), Some(user)) = (&idp, user) {
            let key = TokenKey::at(idp).user(user);
            let key = self.parameter("account").map(|account| key.account(account)).unwrap_or(key);
            key.validate()?;
            self.key = Some(key);
        }
        self.idp = idp.map(Cow::into_owned);
        Ok(())
    }

    /// Whether the caller reaches the grant or the identity provider that the path names.
    fn check_reach(&self) -> Result<(), Problem> {
        if let Some(key) = &self.key {
            return self.may_reach(key);
        }
        match &self.idp {
            Some(idp) if !self.principal.reaches_all_of(idp) => {
                Err(Problem::forbidden("the API key does not reach all of this identity provider"))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// The caller's key does not reach this grant.
    pub(super) fn may_reach(&self, key: &TokenKey) -> Result<(), Problem> {
        if self.principal.reaches(key) {
            Ok(())
        } else {
            Err(Problem::forbidden("the API key does not reach this grant"))
        }
    }

    /// Whether the caller's key is still valid as it was when the request arrived.
    pub(super) fn is_still_known(&self) -> bool {
        self.principal.key().is_none_or(|key| self.api.keys.has(key) && !key.has_expired(self.now()))
    }

    fn now(&self) -> SystemTime {
        self.api.supervisor.clock().now().into()
    }

    /// Checks every parameter, and reads the flags and numbers.
    fn read_query(&mut self) -> Result<(), Problem> {
        for (name, text) in &self.query {
            let Some(parameter) = self.endpoint.query.iter().find(|parameter| parameter.name == name) else {
                let names: Vec<_> = self.endpoint.query.iter().map(|parameter| parameter.name).collect();
                return Err(Problem::invalid(format!("unknown parameter; known here: {}", names.join(", "))));
            };
            let value = parameter.read(text).map_err(Problem::invalid)?;
            if self.values.iter().any(|(before, _)| before == name) {
                return Err(Problem::invalid("a parameter is given twice"));
            }
            self.values.push((parameter.name, value));
        }
        Ok(())
    }

    /// Reads If-Match and If-None-Match. A precondition that cannot be read, or that the endpoint does not check, must
    /// not look as if it held.
    fn read_preconditions(&mut self, request: &HttpRequest) -> Result<(), Problem> {
        for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
            let mut given = request.headers().get_all(&name);
            let Some(value) = given.next() else { continue };
            if self.endpoint.preconditions.iter().all(|known| known.name != name) {
                if self.endpoint.changes() {
                    return Err(Problem::invalid("this request takes no If-Match or If-None-Match"));
                }
                continue;
            }
            let value = value.to_str().ok().filter(|_| given.next().is_none());
            let value = value.ok_or_else(|| Problem::invalid("give If-Match or If-None-Match once, in ASCII"))?;
            if name == header::IF_MATCH {
                self.if_match = Some(value.to_owned());
            } else {
                let tags = IfNoneMatch::parse(request);
                self.if_none_match =
                    Some(tags.map_err(|_| Problem::invalid("If-None-Match is not a list of entity tags"))?);
            }
        }
        Ok(())
    }

    /// Adds to a problem what is known of the grant, which the caller's key reaches, within the time that is left.
    pub(super) async fn with_context(&self, key: &TokenKey, problem: Problem, left: Duration) -> Problem {
        let supervisor = &self.api.supervisor;
        let status = match problem.grant_context() {
            GrantContext::Nothing => return problem,
            GrantContext::InMemory => None,
            // The grant's actor has just responded and has the state in memory.
            GrantContext::Stored => supervisor.call(GetStatus::new(key).timeout(left.min(AT_A_GLANCE))).await.ok(),
        };
        problem.about(status.as_ref(), supervisor.cached(key).as_ref())
    }

    async fn read_body(&self, request: &HttpRequest, mut payload: Payload) -> Result<Bytes, Problem> {
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > MAX_BODY) {
            return Err(Problem::too_large());
        }
        let (mut body, read) = (BytesMut::new(), BodyRead::begin(request));
        let reading = async {
            while let Some(chunk) = payload.next().await {
                let chunk = chunk.map_err(|_| Problem::invalid("the body ended early"))?;
                if body.len() + chunk.len() > MAX_BODY {
                    return Err(Problem::too_large());
                }
                body.extend_from_slice(&chunk);
            }
            if let Some(read) = &read {
                read.complete();
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

    /// The identity provider and the user that the request is about, valid or not, for the audit line.
    pub(super) fn about(&self) -> (Option<&str>, Option<&str>) {
        let user = self.key.as_ref().map(TokenKey::user).or_else(|| self.parameter("user"));
        (self.idp.as_deref(), user)
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn value(&self, parameter: &QueryParameter) -> Option<ParameterValue> {
        self.values.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| *value)
    }

    /// A parameter that is a number.
    pub(super) fn number(&self, parameter: &QueryParameter) -> Option<u64> {
        match self.value(parameter) {
            Some(ParameterValue::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// A parameter that is a number of seconds.
    pub(super) fn seconds(&self, parameter: &QueryParameter) -> Option<Duration> {
        self.number(parameter).map(Duration::from_secs)
    }

    /// A parameter that is true or false, if it is given.
    pub(super) fn given_flag(&self, parameter: &QueryParameter) -> Option<bool> {
        match self.value(parameter) {
            Some(ParameterValue::Flag(flag)) => Some(flag),
            _ => None,
        }
    }

    /// A parameter that is true or false; false unless given.
    pub(super) fn flag(&self, parameter: &QueryParameter) -> bool {
        self.given_flag(parameter).unwrap_or_default()
    }

    /// The body as it came.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads the body, a JSON object; an empty body counts as `{}`. Errors give the position only: the text may be secret.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        // Serde would accept a list as an object.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::invalid("the body is not a JSON object: see openapi.json"));
        }
        serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = match error.classify() {
                serde_json::error::Category::Data => "has a field that is unknown, missing or of another type",
                _ => "is not JSON",
            };
            Problem::invalid(format!("the body {what} (line {line}, column {column}): see openapi.json"))
        })
    }

    /// The generations that the caller has, in If-None-Match (RFC 9110, section 13.1.2).
    pub(super) fn if_none_match(&self) -> Option<&IfNoneMatch> {
        self.if_none_match.as_ref()
    }

    /// The entity tag in If-Match (RFC 9110, section 13.1.1).
    ///
    /// # Errors
    /// It is not exactly one strong tag.
    pub(super) fn if_match(&self) -> Result<Option<EntityTag>, Problem> {
        let strong = |text: &String| text.parse().ok().filter(|tag: &EntityTag| !tag.weak);
        let wrong = || Problem::invalid("If-Match must be one entity tag such as \"g41\"");
        self.if_match.as_ref().map(|text| strong(text).ok_or_else(wrong)).transpose()
    }

    /// What is left of the caller's timeout.
    pub(super) fn left(&self) -> Duration {
        self.left_of(self.seconds(&TIMEOUT).unwrap_or(PATIENCE))
    }

    /// What is left of a timeout that started when the request had been read.
    pub(super) fn left_of(&self, time: Duration) -> Duration {
        (self.began + time).since(self.api.supervisor.clock().read().boot)
    }
}

fn defect() -> Problem {
    Error::Internal("a handler needs a name that its path does not have").into()
}

/// The address of the peer, for the log.
fn peer(request: &HttpRequest) -> impl fmt::Display {
    request.peer_addr().map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
}

/// The API key in the request.
fn presented(request: &HttpRequest) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send an API key: Authorization: Bearer KEY");
    let header = request.headers().get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim_start()) } else { Err(missing()) }
}
