//! The axum application, in front of a program.

use serde_json::{Value, json};

use super::{browser, example, generation};
use crate::support::within;

#[tokio::test]
async fn without_actix_tokens_are_kept_and_errors_say_what_to_do() {
    let Some(mut running) = example("plain_tokio") else { return };
    let (url, http) = (running.url("serving").await, browser());
    let ask = async |user: &str| {
        let answer = within(http.get(format!("{url}/{user}/repositories")).send()).await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let third = |line: &str| (generation(line.strip_prefix("alice has token ")?)? >= 3).then_some(());
    running.finds("a third token that nobody asked for", third).await;
    let (status, repositories) = ask("alice").await;
    assert_eq!((status, &repositories[0]["full_name"]), (200, &json!("alice/notes")), "{repositories}");
    for (user, status, code) in [("bob", 404, "not_connected"), ("%00", 400, "invalid_request")] {
        let (got, told) = ask(user).await;
        assert_eq!((got, &told["code"]), (status, &json!(code)), "{told}");
    }
    let (code, said) = running.interrupt().await;
    assert_eq!(code, Some(0), "{said:?}");
}
