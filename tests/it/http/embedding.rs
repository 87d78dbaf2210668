//! In an actix-web application: the API under a scope, and its own handlers with their callers' tokens.

use actix_web::{
    App, HttpRequest, HttpResponse,
    test::{TestRequest, call_service, init_service, read_body, read_body_json},
    web,
};
use serde_json::Value;
use token_supervisor::{
    Error, TokenKey, TokenSupervisor,
    testing::Profile,
    web::{ApiKey, ApiKeys, Caller, IdpName, IdpToken, Scope, api},
};

use crate::support::{LIFE, World, stop, within};

struct Work;

impl IdpName for Work {
    const NAME: &'static str = "idp";
    const ACCOUNT: &'static str = "work";
}

async fn generation(token: IdpToken<Work>) -> String {
    format!("{} {} {:?}", token.key().user(), token.generation(), token)
}

async fn status(supervisor: TokenSupervisor) -> Result<HttpResponse, Error> {
    let status = supervisor.status(&TokenKey::at("nowhere").user("nobody")).await?;
    Ok(HttpResponse::Ok().body(status.grant_id))
}

/// The user is who the request says: good enough for a test.
fn caller(request: &HttpRequest) -> Option<String> {
    Some(request.headers().get("x-user")?.to_str().ok()?.to_owned())
}

#[actix::test]
async fn handlers_get_their_callers_tokens_and_errors_are_problems() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice").account("work");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    for wrapped in [false, true] {
        let app = App::new().app_data(Caller::by(caller));
        let app =
            if wrapped { app.app_data(web::Data::new(supervisor.clone())) } else { app.app_data(supervisor.clone()) };
        let app = app.route("/generation", web::get().to(generation)).route("/status", web::get().to(status));
        let app = init_service(app).await;
        let ask = async |path: &str, user: Option<&str>| {
            let request = TestRequest::get().uri(path);
            let request = user.into_iter().fold(request, |request, user| request.insert_header(("x-user", user)));
            within(call_service(&app, request.to_request())).await
        };
        world.clock.advance(LIFE);
        let body = read_body(ask("/generation", Some("alice")).await).await;
        let body = String::from_utf8_lossy(&body);
        assert!(body.starts_with("alice g") && !body.contains("ts-test-secret"), "{body}");
        for (path, user, status, code) in [
            ("/generation", Some("bob"), 404, "not_connected"),
            ("/generation", Some(""), 400, "invalid_request"),
            ("/generation", None, 401, "unauthorized"),
            ("/status", None, 404, "unknown_idp"),
        ] {
            let response = ask(path, user).await;
            assert_eq!(response.status().as_u16(), status, "{path} {user:?}");
            assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
            let problem: Value = read_body_json(response).await;
            assert_eq!(problem["code"], code);
        }
    }
    let bare = init_service(App::new().route("/generation", web::get().to(generation))).await;
    let response = call_service(&bare, TestRequest::get().uri("/generation").to_request()).await;
    assert_eq!(response.status(), 500, "a defect of the application, and no panic");
    stop(supervisor).await;
}

#[actix::test]
async fn the_api_is_mounted_beside_an_applications_own_routes() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("acme/alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let keys = ApiKeys::new([ApiKey::from_secret("test", "ts-test-secret-k").scope(Scope::Token)]);
    let own = || async { "own" };
    let app = App::new()
        .service(web::scope("/grants/{tenant}").service(api(supervisor.clone(), keys)))
        .route("/v1/tokens", web::get().to(own));
    let app = init_service(app).await;
    let ask = async |path: &str| {
        let request = TestRequest::get().uri(path).insert_header(("authorization", "Bearer ts-test-secret-k"));
        // The harness says that it listens on loopback.
        let request = request.insert_header(("host", "localhost:8080"));
        let response = within(call_service(&app, request.to_request())).await;
        (response.status().as_u16(), String::from_utf8_lossy(&read_body(response).await).into_owned())
    };
    for user in ["acme%2Falice", "~YWNtZS9hbGljZQ"] {
        let (status, body) = ask(&format!("/grants/some/v1/grants/idp/{user}/token")).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(ask("/grants/some/v1/grants/idp/acme/alice/token").await.0, 404);
    assert_eq!(ask("/v1/tokens").await, (200, "own".to_owned()));
    stop(supervisor).await;
}

#[actix::test]
async fn a_name_that_somebody_made_up_is_no_label() {
    let world = World::new(Profile::gitlab());
    let supervisor = within(world.builder().requests_in_flight(0).start()).await.unwrap();
    let granted = [Scope::Token, Scope::Metrics].into_iter();
    let keys = granted.fold(ApiKey::from_secret("test", "ts-test-secret-k"), ApiKey::scope);
    let app = init_service(App::new().service(api(supervisor.clone(), ApiKeys::new([keys])))).await;
    let ask = async |path: &str| {
        let request = TestRequest::get().uri(path).insert_header(("host", "localhost"));
        let request = request.insert_header(("authorization", "Bearer ts-test-secret-k"));
        within(call_service(&app, request.to_request())).await
    };
    for idp in ["idp", "made-up"] {
        assert_eq!(ask(&format!("/v1/grants/{idp}/alice/token")).await.status(), 429);
    }
    let metrics = read_body(ask("/metrics").await).await;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("{idp=\"idp\",outcome=\"busy\"} 1") && !metrics.contains("made-up"), "{metrics}");
    stop(supervisor).await;
}
