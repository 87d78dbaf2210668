//! A process that is suspended while the response arrives.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
};

use tokio::sync::oneshot;

use super::{
    tests::{SECOND, SPENT, TOKENS, client, response},
    *,
};

/// On one thread, so that blocking it suspends everything.
#[tokio::test]
async fn a_response_that_arrived_while_the_process_was_suspended_is_read() {
    let patience = SECOND / 2;
    for at_once in [TOKENS.len(), 9, 0] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let idp =
            Idp::oauth2(format!("http://{}/token", listener.local_addr().unwrap()), "id", "ts-test-secret-client");
        let (request_arrived, request_has_arrived) = oneshot::channel();
        let (suspended, is_suspended) = channel();
        let (responded, has_responded) = channel();
        let provider = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4_096]).unwrap() > 0);
            let all = response("200 OK", TOKENS);
            let (begun, rest) = all.split_at(if at_once == 0 { 0 } else { all.len() - TOKENS.len() + at_once });
            stream.write_all(begun).unwrap();
            request_arrived.send(()).unwrap();
            is_suspended.recv().unwrap();
            stream.write_all(rest).unwrap();
            responded.send(()).unwrap();
            (stream, responded)
        });
        let suspending = async {
            request_has_arrived.await.unwrap();
            suspended.send(()).unwrap();
            has_responded.recv().unwrap();
            let more = has_responded.recv_timeout(2 * patience);
            assert_eq!(more, Err(RecvTimeoutError::Timeout));
        };
        let (client, spent, params) = (client(&idp), SPENT.into(), BTreeMap::new());
        let (outcome, ()) = tokio::join!(client.refresh(&idp, 0, &spent, &params, patience), suspending);
        assert!(matches!(outcome, ResponseOutcome::Refreshed(_)), "{at_once}: {outcome:?}");
        drop(provider.join().unwrap());
    }
}
