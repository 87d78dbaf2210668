//! The HTTP API as an actix-web service.

use std::sync::Arc;

use actix_web::{
    HttpRequest, Resource,
    dev::{AppService, HttpServiceFactory},
    web::{self, Payload},
};
use tokio::sync::watch;

use super::{call, keys::ApiKeys, metrics::Counters, routes::ROUTES};
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
    /// Whoever can ask may do everything.
    pub(super) trusting: bool,
    pub(super) plain_users: bool,
}

/// The HTTP API of this supervisor, for who shows one of these keys.
pub fn api(supervisor: TokenSupervisor, keys: ApiKeys) -> Api {
    Api { supervisor, keys, counters: Arc::default(), draining: Arc::default(), trusting: false, plain_users: false }
}

impl Api {
    /// The `audit` target names users as they are; otherwise by a digest that only the key ring's owner can make.
    pub fn plain_users(mut self) -> Self {
        self.plain_users = true;
        self
    }

    /// From now on it says that it is not ready, and long polls end: the process will stop. Everything else is
    /// answered as before.
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

    /// What answers at this path.
    fn resource(&self, path: &'static str) -> Resource {
        // The routes of one path stand together in the table.
        let at = ROUTES.iter().position(|route| route.path == path).unwrap_or(ROUTES.len());
        let there = ROUTES[at..].iter().take_while(|route| route.path == path).count();
        let (api, routes) = (self.clone(), &ROUTES[at..at + there]);
        web::resource(path)
            .to(move |request: HttpRequest, payload: Payload| call::answer(api.clone(), routes, request, payload))
    }
}

impl HttpServiceFactory for Api {
    fn register(self, config: &mut AppService) {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        // Whatever else is asked for below our root is answered with a problem, too.
        for path in paths.into_iter().chain(["/v1/{tail:.*}"]) {
            self.resource(path).register(config);
        }
    }
}
