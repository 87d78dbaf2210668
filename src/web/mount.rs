//! The HTTP API as an actix-web service.

use std::sync::Arc;

use actix_web::{
    HttpRequest, Route,
    dev::{AppService, HttpServiceFactory},
    web::{self, Payload},
};

use super::{
    Api,
    endpoint::PROXIED,
    routes::{ApiRoute, ROUTES},
    serve,
};

impl HttpServiceFactory for Api {
    fn register(self, config: &mut AppService) {
        // One for each worker: their threads do not write to one reference count for each request.
        let api = Arc::new(self);
        // The routes of one path are adjacent in the table.
        for routes in ROUTES.chunk_by(|one, next| one.endpoint.path == next.endpoint.path) {
            let endpoint = &routes[0].endpoint;
            web::resource(endpoint.path).route(serving(&api, routes)).register(config);
            if endpoint.of_proxies {
                let behind = format!("{}/{{{PROXIED}:.*}}", endpoint.path);
                web::resource(behind).route(serving(&api, routes)).register(config);
            }
        }
        // Every other path of this version gets a problem document as well.
        web::resource(["/v1", "/v1/{tail:.*}"]).route(serving(&api, &[])).register(config);
    }
}

/// Serves a path that has no route.
pub(super) fn nothing(api: &Api) -> Route {
    serving(&Arc::new(api.clone()), &[])
}

/// Serves these routes, one for each method.
fn serving(api: &Arc<Api>, routes: &'static [ApiRoute]) -> Route {
    let api = api.clone();
    web::to(move |request: HttpRequest, payload: Payload| serve::respond(api.clone(), routes, request, payload))
}
