//! A connection that breaks around a refresh: what Keycloak says of the refresh token decides, and a spent one is never sent.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use super::*;

/// A proxy in front of Keycloak that breaks the connection of a refresh.
struct Breaking {
    url: String,
    next: Arc<AtomicU8>,
}

/// What happens to the next refresh.
const PASSES: u8 = 0;
/// Keycloak does not get the request.
const LOSES_REQUEST: u8 = 1;
/// The client does not get the response.
const LOSES_RESPONSE: u8 = 2;

impl Breaking {
    fn start(server: &Keycloak) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (next, host) = (Arc::new(AtomicU8::new(PASSES)), server.url().replace("http://", ""));
        let breaks = next.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (breaks, host) = (breaks.clone(), host.clone());
                thread::spawn(move || forward(client, &host, &breaks).ok());
            }
        });
        Self { url, next }
    }

    /// Loses the next refresh in this way, and waits until it has.
    async fn loses(&self, what: u8) {
        self.next.store(what, Ordering::SeqCst);
        polled_async("a refresh is lost", Duration::from_secs(30), async || {
            (self.next.load(Ordering::SeqCst) == PASSES).then_some(())
        })
        .await;
    }
}

fn forward(client: TcpStream, host: &str, breaks: &AtomicU8) -> std::io::Result<()> {
    let mut reader = BufReader::new(&client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            // Keycloak names itself by it in tokens.
            "host" => head += &format!("host: {host}\r\nconnection: close\r\n"),
            "connection" => {}
            "content-length" => {
                length = value.trim().parse().unwrap();
                head += &line;
            }
            _ => head += &line,
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let is_refresh = head.starts_with("POST ") && head.contains("/openid-connect/token HTTP/");
    let fate = if is_refresh { breaks.swap(PASSES, Ordering::SeqCst) } else { PASSES };
    if fate == LOSES_REQUEST {
        return Ok(());
    }
    let mut server = TcpStream::connect(host)?;
    server.write_all(head.as_bytes())?;
    server.write_all(&body)?;
    let mut response = Vec::new();
    server.read_to_end(&mut response)?;
    if fate == PASSES { (&client).write_all(&response) } else { Ok(()) }
}

pub(super) async fn a_spent_token_is_found_out_without_a_second_use(server: &Keycloak) {
    let (folder, proxy) = (TempDir::new().unwrap(), Breaking::start(server));
    let user = server.add_user("unanswered").await;
    let consent = server.consent("unanswered", "openid offline_access").await;
    let supervisor = builder(folder.path(), &proxy.url, CLIENT_SECRET).start().await.unwrap();
    supervisor.connect(&key(), consent.grant).await.unwrap();
    let before = refreshed(&supervisor).await;

    proxy.loses(LOSES_REQUEST).await;
    polled_async("a refresh after the doubt", Duration::from_secs(30), async || {
        supervisor.refresh_now(&key()).await.ok().filter(|refreshed| refreshed.status.generation.get() > before)
    })
    .await;
    works(server, &supervisor).await;

    proxy.loses(LOSES_RESPONSE).await;
    settled(&supervisor, State::ReconnectRequired).await;
    let status = within(supervisor.status(&key())).await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("in_doubt"));
    stop(supervisor).await;
    let is_ours = |event: &&Value| event["userId"] == *user || event["sessionId"] == *consent.session;
    let errors = server.events(&["REFRESH_TOKEN_ERROR"]).await;
    assert_eq!(errors.iter().filter(is_ours).count(), 0, "{errors:?}");
    assert!(server.events(&["REFRESH_TOKEN"]).await.iter().filter(is_ours).count() >= 3);
}
