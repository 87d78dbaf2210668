//! From `init` to tokens over HTTP that outlive their lifetimes and a server that is killed.

use std::time::Duration;

use super::{
    LIFE, one_presentation_each,
    server::{CLIENT, CLIENT_SECRET, Keycloak, USER},
};
use crate::{
    installed::Installed,
    real_time::{pass, polled_async},
};

const READERS: usize = 200;
const LIVES: u32 = 3;

pub(super) async fn from_init_to_tokens_that_outlive_a_killed_server(server: &Keycloak) {
    let installed = installed(server);
    let consent = server.consent(USER, "openid offline_access").await;
    installed.connect(USER, &consent.answer);
    let accepted = async |token: &str| server.accepts(token).await;
    let serving = installed.serve();
    installed.reads(USER, LIVES * LIFE, accepted).await;

    // Nothing is in flight when it is killed, so nothing may be lost.
    installed.hold().await;
    let before = installed.living(USER);
    installed.end(serving, "KILL").await;
    pass(LIFE).await;
    let serving = installed.serve_again().await;
    let tokens = installed.tokens(USER, READERS).await;
    assert!(tokens.iter().all(|token| token.generation > before), "the token has ended");
    installed.reads(USER, LIFE, accepted).await;

    assert_eq!(installed.end(serving, "TERM").await.code(), Some(0));
    // On its way even a good one may end.
    let accepted = async || server.accepts(&installed.printed_token(USER)).await.then_some(());
    polled_async("a token that was printed is accepted", Duration::from_secs(30), accepted).await;
    let generation = installed.living(USER);
    assert_eq!(one_presentation_each(server, &consent.session).await, generation - 1, "each refresh is one generation");
}

fn installed(server: &Keycloak) -> Installed {
    let base = format!("params = {{ base = \"{}\", realm = \"app\" }}", server.url());
    let (client_id, client_secret) =
        (format!("client_id = \"{CLIENT}\""), format!("client_secret = \"{CLIENT_SECRET}\""));
    let edits = [
        ("params = { base = \"https://sso.example.com\", realm = \"app\" }", base.as_str()),
        ("client_id = { env = \"KEYCLOAK_CLIENT_ID\" }", &client_id),
        ("client_secret = { env = \"KEYCLOAK_CLIENT_SECRET\" }", &client_secret),
    ];
    Installed::new("keycloak", &edits)
}
