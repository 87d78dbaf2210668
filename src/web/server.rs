//! Serves the API on sockets of its own.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{io, net::TcpListener, pin::pin, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle};
use futures_util::future::{Either, select};
use tokio::{sync::watch, task::JoinHandle};

use super::{Api, mount};

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
    /// Closes when the server has ended.
    alive: watch::Receiver<()>,
}

/// Builds the server of one API, not yet running.
macro_rules! server {
    ($api:expr) => {{
        let api: Api = $api;
        HttpServer::new(move || App::new().service(api.clone()).default_service(mount::nothing(&api)))
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
    /// The operating system rejected a listener.
    pub fn start(api: Api, listeners: impl IntoIterator<Item = TcpListener>) -> io::Result<Self> {
        let mut server = server!(api.clone());
        for listener in listeners {
            server = server.listen(listener)?;
        }
        Ok(Self::running(api, server.run()))
    }

    /// Serves the API on a Unix socket, without API keys: every process that can open the socket may do everything. The
    /// socket's file must be accessible to this user alone (mode 0600).
    ///
    /// # Errors
    /// The operating system rejected the listener.
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

    /// Waits until the server has ended without [`stop`](Self::stop): it failed, and `stop` returns the error.
    ///
    /// Dropping the future changes nothing.
    pub async fn ended(&self) {
        self.alive.clone().changed().await.ok();
    }

    /// Stops the server. It first reports not ready, for two seconds if a load balancer polls that ([`Api::drain`]); then it
    /// accepts no more connections, and waits until the requests under way have their responses and their changes are
    /// done. Long polls end at once; a client that neither sends nor reads is not waited for. The supervisor continues:
    /// shut it down next.
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
        // A change may still be under way although its connection is gone.
        select(pin!(api.idle()), pin!(clock.sleep(end.since(clock.read().boot)))).await;
        match self.running.await {
            Err(ended) if ended.is_cancelled() => Ok(()),
            ended => ended.map_err(io::Error::other)?,
        }
    }
}

/// Tokens come from a map: two threads produce more responses than a network card sends.
const WORKERS: usize = 2;
/// Limit for a client to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// By then a load balancer that polls every second has seen that the server is not ready.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Longer than any request may wait once it was read. Only offboarding a user with very many grants may take longer.
const DRAINED_WITHIN: Duration = Duration::from_secs(65);
/// By then the last responses are sent, unless a client does not read.
const SENT_WITHIN: Duration = Duration::from_secs(5);

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{
        Keyring, TokenSupervisor,
        web::{ApiKeys, api},
    };

    #[tokio::test]
    async fn ended_resolves_when_the_server_fails() {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join("t.db").display());
        let supervisor = TokenSupervisor::builder().store(store).keyring(Keyring::generate()).start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(api(supervisor.clone(), ApiKeys::new([])), [listener]).unwrap();
        tokio::select! {
            biased;
            () = server.ended() => panic!("the server is running"),
            () = std::future::ready(()) => {}
        }
        server.handle.stop(false).await;
        server.ended().await;
        server.stop().await.unwrap();
        supervisor.shutdown(Duration::from_secs(5)).await;
    }
}
