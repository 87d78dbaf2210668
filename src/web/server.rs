//! The API on sockets of its own.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{io, net::TcpListener, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle};
use tokio::{sync::watch, task::JoinHandle};

use super::Api;

/// A running server. Dropping it leaves it running; [`stop`](Self::stop) ends it.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, _, _| {
/// use std::{net::TcpListener, time::Duration};
/// use token_supervisor::web::{ApiKey, ApiKeys, Scope, Server, api};
///
/// # let sha256 = [0; 32];
/// let keys = ApiKeys::new([ApiKey::new("billing", sha256).scope(Scope::Token)]);
/// let listener = TcpListener::bind("127.0.0.1:0")?; // such as 127.0.0.1:8080
/// let server = Server::start(api(supervisor.clone(), keys), [listener])?;
/// // ... until a signal comes; then:
/// server.stop().await?;
/// supervisor.shutdown(Duration::from_secs(30)).await;
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Server {
    api: Api,
    handle: ServerHandle,
    running: JoinHandle<io::Result<()>>,
    /// Closes when it runs no more.
    alive: watch::Receiver<()>,
}

/// The server of one API, not yet running.
macro_rules! server {
    ($api:expr) => {{
        let api: Api = $api;
        HttpServer::new(move || App::new().service(api.clone()))
            .workers(WORKERS)
            .disable_signals()
            .client_request_timeout(HEAD_WITHIN)
            .shutdown_timeout(DRAINED_WITHIN.as_secs())
    }};
}

impl Server {
    /// Serves the API on these listeners, from within a tokio runtime. Signals are left to the caller.
    ///
    /// # Errors
    /// The operating system refused a listener.
    pub fn start(api: Api, listeners: impl IntoIterator<Item = TcpListener>) -> io::Result<Self> {
        let mut server = server!(api.clone());
        for listener in listeners {
            server = server.listen(listener)?;
        }
        Ok(Self::running(api, server.run()))
    }

    /// The same on a Unix socket, without any key: whoever can open the socket may do everything. Its file must be
    /// this user's alone (mode 0600).
    ///
    /// # Errors
    /// The operating system refused the listener.
    #[cfg(unix)]
    pub fn start_trusting(mut api: Api, listener: UnixListener) -> io::Result<Self> {
        api.trusting = true;
        let server = server!(api.clone()).listen_uds(listener)?;
        Ok(Self::running(api, server.run()))
    }

    fn running(api: Api, server: actix_web::dev::Server) -> Self {
        let handle = server.handle();
        let (runs, alive) = watch::channel(());
        let running = tokio::spawn(async move {
            let _runs = runs;
            server.await
        });
        Self { api, handle, running, alive }
    }

    /// Waits until it has ended, although nobody stopped it: it failed, as [`stop`](Self::stop) says next.
    ///
    /// Dropping the future changes nothing.
    pub async fn ended(&self) {
        self.alive.clone().changed().await.ok();
    }

    /// Takes no more connections, and waits until the requests under way are answered. Long polls end at once. The
    /// supervisor runs on: shut it down next.
    ///
    /// Dropping the future leaves the server stopping.
    ///
    /// # Errors
    /// The server had already failed.
    pub async fn stop(self) -> io::Result<()> {
        self.api.drain();
        self.handle.stop(true).await;
        self.running.await.map_err(io::Error::other)?
    }
}

/// Tokens come from a map: two threads write more of them than a network card sends.
const WORKERS: usize = 2;
/// A client that takes longer to send its head is cut off.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Longer than any request may wait.
const DRAINED_WITHIN: Duration = Duration::from_secs(65);

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{
        Keyring, TokenSupervisor,
        web::{ApiKeys, api},
    };

    #[tokio::test]
    async fn a_server_that_ended_by_itself_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join("t.db").display());
        let supervisor = TokenSupervisor::builder().store(store).keyring(Keyring::generate()).start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(api(supervisor.clone(), ApiKeys::new([])), [listener]).unwrap();
        tokio::select! {
            biased;
            () = server.ended() => panic!("it runs"),
            () = std::future::ready(()) => {}
        }
        server.handle.stop(false).await;
        server.ended().await;
        server.stop().await.unwrap();
        supervisor.shutdown(Duration::from_secs(5)).await;
    }
}
