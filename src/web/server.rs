//! The API on sockets of its own.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{io, net::TcpListener, pin::pin, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle};
use futures_util::future::{Either, select};
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
        HttpServer::new(move || App::new().service(api.clone()).default_service(api.with(&[])))
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

    /// Says that it is not ready, for a moment if anybody asks that ([`Api::drain`]); then takes no more connections, and
    /// waits until the requests under way are answered and what they change is done. Long polls end at once, and who
    /// does not send or read is not waited for. The supervisor runs on: shut it down next.
    ///
    /// Dropping the future leaves the server stopping.
    ///
    /// # Errors
    /// The server had already failed.
    pub async fn stop(self) -> io::Result<()> {
        tokio::spawn(self.end()).await.map_err(io::Error::other)?
    }

    async fn end(self) -> io::Result<()> {
        let (api, clock) = (&self.api, self.api.supervisor.clock());
        api.drain();
        if api.is_watched() {
            clock.sleep(SEEN_WITHIN).await;
        }
        let end = clock.read().boot + DRAINED_WITHIN;
        let closed = self.handle.stop(true);
        let silent = async {
            api.idle().await;
            clock.sleep(SENT_WITHIN).await;
            api.idle().await;
        };
        if let Either::Right(_) = select(pin!(closed), pin!(silent)).await {
            self.running.abort();
        }
        // Connections may be gone of which something is still being done.
        select(pin!(api.idle()), pin!(clock.sleep(end.since(clock.read().boot)))).await;
        match self.running.await {
            Err(ended) if ended.is_cancelled() => Ok(()),
            ended => ended.map_err(io::Error::other)?,
        }
    }
}

/// Tokens come from a map: two threads write more of them than a network card sends.
const WORKERS: usize = 2;
/// A client that takes longer to send its head is cut off.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Until then a load balancer that looks every second has seen that the server is not ready.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Longer than any request may wait once it was read. Only the end of a user with very many grants may take longer.
const DRAINED_WITHIN: Duration = Duration::from_secs(65);
/// The last answers are on their way by then, if anybody reads them.
const SENT_WITHIN: Duration = Duration::from_secs(5);

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
