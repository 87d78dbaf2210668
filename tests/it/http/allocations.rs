//! What a token over HTTP costs in memory.

use actix_web::{
    App,
    test::{TestRequest, call_service, init_service},
};
use allocation_counter::measure;
use futures_util::FutureExt as _;
use token_supervisor::{
    TokenKey,
    testing::Profile,
    web::{ApiKey, ApiKeys, Scope, api},
};

use crate::support::{World, stop, within};

/// The allocations of one request, without those of the connection. Fewer are welcome: then lower the number.
const MOST: u64 = 60;
const READS: u64 = 100;

#[actix::test]
async fn a_token_over_http_takes_few_allocations() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    within(supervisor.connect(&TokenKey::at("idp").user("alice"), world.sim.consent("alice"))).await.unwrap();
    let key = ApiKey::from_secret("billing", "ts-test-secret-k").scope(Scope::Token);
    let app = init_service(App::new().service(api(supervisor.clone(), ApiKeys::new([key])))).await;
    let (log, _listening) = super::audited::Log::listen();
    let request = || {
        let request = TestRequest::with_uri("/v1/grants/idp/alice/token").insert_header(("host", "localhost"));
        request.insert_header(("authorization", "Bearer ts-test-secret-k")).to_request()
    };
    let read = |request| {
        let response = call_service(&app, request).now_or_never().expect("a token that is there at once");
        assert_eq!(response.status(), 200);
    };
    read(request());
    let requests: Vec<_> = (0..READS).map(|_| request()).collect();
    let allocations = measure(|| requests.into_iter().for_each(read)).count_total / READS;
    assert!(allocations <= MOST, "{allocations}");
    assert!(log.audit().len() as u64 > READS);
    stop(supervisor).await;
}
