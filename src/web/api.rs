//! The HTTP API as an actix-web service.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use actix_web::{
    HttpRequest,
    dev::{AppService, HttpServiceFactory},
    web::{self, Payload},
};
use tokio::sync::watch;

use super::{
    keys::ApiKeys,
    metrics::Counters,
    routes::{ROUTES, Route},
    serve,
};
use crate::TokenSupervisor;

/// The HTTP API of a supervisor, to be mounted in an application, in any scope. A handle: clones are the same.
///
/// ```
/// use actix_web::{App, web};
/// use token_supervisor::{TokenSupervisor, web::{ApiKey, ApiKeys, Scope, api}};
///
/// fn mount(supervisor: TokenSupervisor, sha256: [u8; 32]) {
///     let api = api(supervisor, ApiKeys::new([ApiKey::new("billing", sha256).scope(Scope::Token)]));
///     let app = move || App::new().service(web::scope("/tokens").service(api.clone()));
/// #   let _ = app();
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Api {
    pub(super) supervisor: TokenSupervisor,
    pub(super) keys: ApiKeys,
    pub(super) counters: Arc<Counters>,
    draining: Arc<watch::Sender<bool>>,
    /// How many requests are being answered or carried out.
    active: Arc<watch::Sender<usize>>,
    /// Somebody asks whether it is ready.
    watched: Arc<AtomicBool>,
    /// Names that it has on loopback, beside those of loopback.
    pub(super) hosts: Arc<[String]>,
    /// Whoever can ask may do everything, and no browser is among them.
    pub(super) trusting: bool,
    pub(super) plain_users: bool,
}

/// The HTTP API of this supervisor, to be mounted in an actix-web application (`App::service`, under any scope) or served
/// by a [`Server`](super::Server). It is open to whoever shows one of these keys, as far as that key reaches.
pub fn api(supervisor: TokenSupervisor, keys: ApiKeys) -> Api {
    Api {
        supervisor,
        keys,
        counters: Arc::default(),
        draining: Arc::default(),
        active: Arc::default(),
        watched: Arc::default(),
        hosts: Arc::default(),
        trusting: false,
        plain_users: false,
    }
}

impl Api {
    /// Names users as they are in the lines of the `audit` target (field `user`), instead of by a digest that only the key
    /// ring's owner can make.
    pub fn plain_users(mut self) -> Self {
        self.plain_users = true;
        self
    }

    /// On a loopback address it answers requests for these hosts, too: those under which a proxy on this machine passes
    /// them on. Without, only requests for a name of loopback are answered there, so that no web page reaches it
    /// through somebody's browser.
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// From now on it says that it is not ready, and long polls end: the process will stop. Everything else is
    /// answered as before, but slow bodies are not waited for.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.draining.borrow() || self.supervisor.is_stopping()
    }

    /// Resolves when it drains.
    pub(super) async fn drained(&self) {
        self.draining.subscribe().wait_for(|draining| *draining).await.ok();
    }

    /// Somebody asks whether it is ready.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether somebody sends requests elsewhere when it says that it is not ready.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// A request came, or what it asks for is begun: until this is dropped.
    pub(super) fn enter(&self) -> Active {
        self.active.send_modify(|active| *active += 1);
        Active(self.active.clone())
    }

    /// Resolves when nothing is being answered or carried out.
    pub(super) async fn idle(&self) {
        self.active.subscribe().wait_for(|active| *active == 0).await.ok();
    }

    /// Answers with these routes, one for each method.
    pub(super) fn with(&self, routes: &'static [Route]) -> actix_web::Route {
        let api = self.clone();
        web::to(move |request: HttpRequest, payload: Payload| serve::answer(api.clone(), routes, request, payload))
    }
}

/// A request that is being answered or carried out.
pub(super) struct Active(Arc<watch::Sender<usize>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|active| *active -= 1);
    }
}

impl HttpServiceFactory for Api {
    fn register(self, config: &mut AppService) {
        // The routes of one path stand together in the table.
        for routes in ROUTES.chunk_by(|one, next| one.path == next.path) {
            let path = routes[0].path;
            web::resource(path).route(self.with(routes)).register(config);
            if routes[0].of_proxies {
                web::resource(format!("{path}/{{{ASKED}:.*}}")).route(self.with(routes)).register(config);
            }
        }
        // Whatever else is asked for of this version is answered with a problem, too.
        web::resource(["/v1", "/v1/{tail:.*}"]).route(self.with(&[])).register(config);
    }
}

/// What a proxy is asked for, where it puts that behind our path.
pub(super) const ASKED: &str = "asked_of_the_proxy";
