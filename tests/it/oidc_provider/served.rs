//! From `init` to tokens over HTTP that outlive their lifetimes, a provider that hangs, and servers that are killed.

use futures_util::future::join;

use super::{
    READERS,
    provider::{CLIENT, CLIENT_SECRET, LIFE, Provider},
};
use crate::{installed::Installed, real_time::pass};

const USER: &str = "alice";
const LIVES: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_init_to_tokens_that_outlive_killed_servers() {
    let Some(provider) = Provider::start().await else { return };
    let installed = installed(&provider, &[]);
    installed.connect(USER, &provider.consent(USER).await.0);
    let accepted = async |token: &str| provider.accepts(token).await;
    let server = installed.serve();
    let used = installed.reads(USER, LIVES * LIFE, accepted).await;

    // The refresh that is due hangs until the token has ended, and more readers come than anybody needs.
    let before = installed.sees_a_refresh(USER).await;
    provider.pause();
    pass(LIFE).await;
    let answered = async {
        pass(LIFE / 10).await;
        provider.resume();
    };
    let (tokens, ()) = join(installed.tokens(USER, READERS), answered).await;
    assert!(tokens.iter().all(|token| token.generation == before + 1), "one refresh for all of them");

    // Nothing is in flight right after a refresh, so nothing may be lost.
    installed.sees_a_refresh(USER).await;
    installed.end(server, "KILL").await;
    let server = installed.serve();
    installed.sees_a_refresh(USER).await;
    let before = installed.sees_a_refresh(USER).await;
    installed.end(server, "KILL").await;
    pass(LIFE).await;
    let server = installed.serve();
    let tokens = installed.tokens(USER, READERS).await;
    assert!(tokens.iter().all(|token| token.generation > before), "the token has ended");
    let used = used + installed.reads(USER, LIFE, accepted).await;

    assert_eq!(installed.end(server, "TERM").await.code(), Some(0));
    assert!(provider.accepts(&installed.printed_token(USER)).await);
    let generation = installed.living(USER);
    assert_eq!(provider.spent_once_each(USER), generation - 1, "each refresh is one generation");
    println!("{} refresh tokens spent once each, {used} tokens used, 2 servers killed", generation - 1);
}

/// The program with this provider, and more edits of its configuration.
pub(super) fn installed(provider: &Provider, more: &[(&str, &str)]) -> Installed {
    let token_url = format!("token_url = \"{}\"", provider.token_url());
    let (client_id, client_secret) =
        (format!("client_id = \"{CLIENT}\""), format!("client_secret = \"{CLIENT_SECRET}\""));
    let edits = [
        ("token_url = \"https://idp.example.com/oauth/token\"", token_url.as_str()),
        ("client_id = { env = \"OAUTH2_CLIENT_ID\" }", &client_id),
        ("client_secret = { env = \"OAUTH2_CLIENT_SECRET\" }", &client_secret),
    ];
    Installed::new("oauth2", &[&edits, more].concat())
}
