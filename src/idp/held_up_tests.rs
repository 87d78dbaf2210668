//! A process that stands still while the answer comes.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
};

use tokio::sync::oneshot;

use super::{
    tests::{SECOND, SPENT, TOKENS, answer, client},
    *,
};

/// On one thread, so that whoever holds it up holds up everything.
#[tokio::test]
async fn an_answer_that_came_while_the_process_was_held_up_is_read() {
    let patience = SECOND / 2;
    for at_once in [TOKENS.len(), 9, 0] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let idp =
            Idp::oauth2(format!("http://{}/token", listener.local_addr().unwrap()), "id", "ts-test-secret-client");
        let (asked, was_asked) = oneshot::channel();
        let (held_up, is_held_up) = channel();
        let (answered, was_answered) = channel();
        let provider = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4_096]).unwrap() > 0);
            let all = answer("200 OK", TOKENS);
            let (begun, rest) = all.split_at(if at_once == 0 { 0 } else { all.len() - TOKENS.len() + at_once });
            stream.write_all(begun).unwrap();
            asked.send(()).unwrap();
            is_held_up.recv().unwrap();
            stream.write_all(rest).unwrap();
            answered.send(()).unwrap();
            (stream, answered)
        });
        let holding_up = async {
            was_asked.await.unwrap();
            held_up.send(()).unwrap();
            was_answered.recv().unwrap();
            let more = was_answered.recv_timeout(2 * patience);
            assert_eq!(more, Err(RecvTimeoutError::Timeout));
        };
        let (client, spent, params) = (client(&idp), SPENT.into(), BTreeMap::new());
        let (outcome, ()) = tokio::join!(client.refresh(&idp, 0, &spent, &params, patience), holding_up);
        assert!(matches!(outcome, Outcome::Refreshed(_)), "{at_once}: {outcome:?}");
        drop(provider.join().unwrap());
    }
}
