//! The actor, by what it prints.

use super::{example, generation};
use crate::support::eventually;

#[tokio::test]
async fn an_actor_copies_on_and_leaves_alone_who_must_consent_again() {
    let Some(mut running) = example("actor_messages") else { return };
    let alices = |line: &str| line.starts_with("alice: alice/notes, alice/site, alice/tools (token g").then_some(());
    running.finds("alice's", alices).await;
    let bobs_end = |line: &str| line.starts_with("bob: must consent again: bad_refresh_token").then_some(());
    running.finds("bob's end", bobs_end).await;
    let back = |line: &str| line == "bob: has consented again";
    running.finds("bob's return", |line| back(line).then_some(())).await;
    let copied = |line: &String| line.starts_with("bob: ") && line.contains(" (token g");
    let again = || running.said().iter().skip_while(|line| !back(line)).any(copied);
    eventually("bob's are copied again", again).await;
    let third = |line: &str| (generation(line.split_once("(token ")?.1)? >= 3).then_some(());
    running.finds("a third token", third).await;
    let (code, said) = running.interrupt().await;
    assert_eq!(code, Some(0), "{said:?}");
    // Every round has a line for each of them but for who is left alone. Four were, and lines may be under way.
    let lines = |of: &str| said.iter().filter(|line| line.starts_with(of)).count();
    let events = lines("bob: must consent again") + lines("bob: has consented again");
    assert!(lines("alice: ") >= lines("bob: ") - events + 2, "{said:?}");
    assert!(said.iter().all(|line| !line.contains("ts-test-secret")), "a secret was printed");
}
