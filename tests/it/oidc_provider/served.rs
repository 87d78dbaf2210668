//! From `init` to tokens over HTTP that outlive their lifetimes, a provider that hangs, and servers that are killed.

use std::time::Duration;

use futures_util::future::join;

use super::{
    READERS,
    provider::{CLIENT, CLIENT_SECRET, LIFE, Provider},
};
use crate::{
    installed::Installed,
    real_time::{now, pass, polled_async},
};

/// Connected before there is a server, and while one runs.
const USER: &str = "alice";
const LATER: &str = "bob";
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
    provider.pause().await;
    pass(LIFE).await;
    let (spent, asked) = (provider.spent_once_each(USER), now());
    let answered = async {
        pass(LIFE / 10).await;
        provider.resume();
    };
    let (tokens, ()) = join(installed.tokens(USER, READERS), answered).await;
    // What hung so long may bring a token that is due, or has ended: one more, and on a busy machine the next.
    let refreshes = 1..=2 + (now() - asked) / (LIFE / 3).as_millis() as u64;
    let brought = |generation: u64| generation.saturating_sub(1 + spent);
    assert!(tokens.iter().all(|token| refreshes.contains(&brought(token.generation))), "as few as for one reader");

    // Nothing is in flight when it is killed, so nothing may be lost.
    installed.hold().await;
    installed.end(server, "KILL").await;
    let server = installed.serve_again().await;
    installed.sees_a_refresh(USER).await;
    installed.hold().await;
    let before = installed.living(USER);
    installed.end(server, "KILL").await;
    pass(LIFE).await;
    let server = installed.serve_again().await;
    let tokens = installed.tokens(USER, READERS).await;
    assert!(tokens.iter().all(|token| token.generation > before), "the token has ended");
    installed.connect(LATER, &provider.consent(LATER).await.0);
    let used = used + installed.reads(USER, LIFE, accepted).await;

    assert_eq!(installed.end(server, "TERM").await.code(), Some(0));
    for user in [USER, LATER] {
        // On its way even a good one may end.
        let accepted = async || provider.accepts(&installed.printed_token(user)).await.then_some(());
        polled_async("a token that was printed is accepted", Duration::from_secs(30), accepted).await;
        let spent = provider.spent_once_each(user);
        assert_eq!(spent, installed.living(user) - 1, "each refresh is one generation");
        println!("{user}: {spent} refresh tokens spent once each, {used} tokens used by all, 2 servers killed");
    }
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
