//! Whatever a provider answers, in whatever order: no grant is deleted, nobody waits for ever, and a refresh token
//! that an answer has replaced is not sent again.

use std::time::Duration;

use proptest::{prelude::*, test_runner::TestRunner};
use token_supervisor::{Acquire, Error, Grant, Idp, RefreshToken, State, TokenKey, TokenSupervisor, testing::Profile};

use crate::{
    raw::{RawIdp, with_head},
    support::{LIFE, World, passing, stop, within},
};

/// One answer to one refresh.
#[derive(Clone, Debug)]
enum Mad {
    /// New tokens, in a complete answer.
    Good,
    /// The same, cut off before its end.
    GoodCut,
    /// A new access token alone.
    Kept,
    Error(u16, &'static str),
    /// Both tokens and a refusal.
    Contradiction(u16),
    NotOk,
    /// Any JSON, complete.
    Json(u16, String),
    Bytes(u16, Vec<u8>),
    /// Any bytes instead of HTTP.
    NoHttp(Vec<u8>),
    Silence,
}

fn mad() -> impl Strategy<Value = Mad> {
    let status =
        || prop_oneof![Just(200_u16), Just(400), Just(401), Just(403), Just(429), Just(500), Just(503), 100_u16..999];
    let codes = prop::sample::select(vec![
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "invalid_request",
        "temporarily_unavailable",
        "slow_down",
        "Not Found",
        "",
    ]);
    let json = "\\{(\"(access_token|refresh_token|expires_in|error|ok|scope|id_token)\":(\"[a-z.]{0,6}\"|[0-9]{1,20}|null|\\[\\]|\\{\\}|-1|1e999|true),){0,4}\"x\":0\\}";
    prop_oneof![
        3 => Just(Mad::Good),
        2 => Just(Mad::GoodCut),
        1 => Just(Mad::Kept),
        3 => (status(), codes).prop_map(|(status, code)| Mad::Error(status, code)),
        1 => status().prop_map(Mad::Contradiction),
        1 => Just(Mad::NotOk),
        2 => (status(), json).prop_map(|(status, body)| Mad::Json(status, body)),
        1 => (status(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(status, body)| Mad::Bytes(status, body)),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Mad::NoHttp),
        1 => Just(Mad::Silence),
    ]
}

/// The refresh token that was sent again although a response had replaced it.
fn sent_again(raw: &RawIdp, script: &[Mad]) -> Option<String> {
    let log: Vec<_> =
        raw.log().iter().filter_map(|request| request.field("refresh_token").map(str::to_owned)).collect();
    let replaced = |number: usize| matches!(script.get(number), None | Some(Mad::Good));
    log.iter().enumerate().find_map(|(number, token)| {
        (replaced(number) && log[number + 1..].contains(token)).then(|| format!("{token} after answer {number}"))
    })
}

fn answer(mad: &Mad, number: usize) -> Vec<u8> {
    let tokens = format!(
        r#"{{"access_token":"ts-test-secret-a{number}","refresh_token":"ts-test-secret-r{number}","expires_in":3600}}"#
    );
    let whole = |status: u16, body: &[u8]| with_head(status, "Content-Type: application/json\r\n", body);
    match mad {
        Mad::Good => whole(200, tokens.as_bytes()),
        Mad::GoodCut => {
            let answer = whole(200, tokens.as_bytes());
            answer[..answer.len() - 20].to_vec()
        }
        Mad::Kept => {
            whole(200, format!(r#"{{"access_token":"ts-test-secret-a{number}","expires_in":3600}}"#).as_bytes())
        }
        Mad::Error(status, code) => whole(*status, format!(r#"{{"error":"{code}"}}"#).as_bytes()),
        Mad::Contradiction(status) => whole(*status, tokens.replace('{', r#"{"error":"invalid_grant","#).as_bytes()),
        Mad::NotOk => whole(200, tokens.replace('{', r#"{"ok":false,"#).as_bytes()),
        Mad::Json(status, body) => whole(*status, body.as_bytes()),
        Mad::Bytes(status, body) => whole(*status, body),
        Mad::NoHttp(bytes) => bytes.clone(),
        Mad::Silence => Vec::new(),
    }
}

async fn connect(supervisor: &TokenSupervisor, key: &TokenKey, number: usize) {
    let grant = Grant::new("ts-test-secret-consent").refresh_token(format!("ts-test-secret-c{number}"));
    within(supervisor.connect(key, grant.expires_in(LIFE))).await.unwrap();
}

async fn stored(supervisor: &TokenSupervisor, key: &TokenKey) -> Option<RefreshToken> {
    supervisor.testing().stored_refresh_token(key).await.unwrap()
}

/// Plays the script; whoever waits for a token is answered, and the grant is there, whatever happens.
async fn play(script: Vec<Mad>) -> Result<(), String> {
    let world = World::new(Profile::github());
    let answers = script.clone();
    // After the end of the script the provider is well again.
    let raw = RawIdp::start(move |number, _| answer(answers.get(number).unwrap_or(&Mad::Good), number)).await;
    let idp = Idp::oauth2(raw.url(), "client", "ts-test-secret-client");
    let supervisor = world.bare_builder().idp("idp", idp).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    connect(&supervisor, &key, 0).await;
    for round in 1..=script.len() {
        world.clock.advance(LIFE);
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let asked = supervisor.call(Acquire::new(&key).timeout(Duration::from_secs(45)));
                tokio::spawn(asked)
            })
            .collect();
        for caller in callers {
            match passing(&world, Duration::from_millis(500), caller).await {
                Ok(_) | Err(Error::Unavailable { .. } | Error::Timeout | Error::MinTtlUnsatisfiable { .. }) => {}
                Err(Error::ReconnectRequired { .. }) => connect(&supervisor, &key, round).await,
                Err(error) => return Err(format!("a caller was told: {error}")),
            }
        }
        let state = within(supervisor.status(&key)).await.unwrap().state;
        if matches!(state, State::Absent | State::Revoked) || stored(&supervisor, &key).await.is_none() {
            return Err(format!("the grant is gone: {state}"));
        }
        if let Some(what) = sent_again(&raw, &script) {
            return Err(format!("sent again: {what}"));
        }
    }
    stop(supervisor).await;
    Ok(())
}

#[test]
fn no_sequence_of_answers_destroys_anything() {
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = prop::collection::vec(mad(), 1..10);
    let played =
        TestRunner::new(config).run(&script, |script| runtime.block_on(play(script)).map_err(TestCaseError::fail));
    played.unwrap();
}
