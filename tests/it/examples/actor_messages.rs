//! The actor, by what it prints.

use super::example;

#[tokio::test]
async fn an_actor_copies_on_and_leaves_alone_who_must_consent_again() {
    let Some(mut running) = example("actor_messages") else { return };
    let line = |begins: &'static str, ends: &'static str| {
        move |line: &str| (line.starts_with(begins) && line.ends_with(ends)).then_some(())
    };
    running.finds("alice's", line("alice: alice/notes, alice/site, alice/tools (token g1)", "")).await;
    running.finds("bob's end", line("bob: must consent again: bad_refresh_token", "")).await;
    running.finds("bob's return", line("bob: has consented again", "")).await;
    running.finds("alice's third token", line("alice: ", "(token g3)")).await;
    let (code, said) = running.interrupt().await;
    assert_eq!(code, Some(0), "{said:?}");
    let place = |begins: &str| said.iter().position(|line| line.starts_with(begins)).unwrap();
    let (gone, back) = (place("bob: must consent again"), place("bob: has consented again"));
    // One round may have been under way.
    let between = said[gone + 1..back].iter().filter(|line| line.starts_with("bob: ")).count();
    assert!(between <= 1, "{said:?}");
    assert!(said.iter().all(|line| !line.contains("ts-test-secret")), "a secret was printed");
}
