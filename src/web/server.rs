//! The API on sockets of its own.

use std::{io, net::TcpListener, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle};
use tokio::task::JoinHandle;

use super::Api;

/// A running server. Dropping it leaves it running; [`stop`](Self::stop) ends it.
#[derive(Debug)]
pub struct Server {
    api: Api,
    handle: ServerHandle,
    running: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Serves the API on these listeners, from within a tokio runtime. Signals are left to the caller.
    ///
    /// # Errors
    /// The operating system refused a listener.
    pub fn start(api: Api, listeners: impl IntoIterator<Item = TcpListener>) -> io::Result<Self> {
        let served = api.clone();
        let mut server = HttpServer::new(move || App::new().service(served.clone()))
            .workers(WORKERS)
            .disable_signals()
            .client_request_timeout(HEAD_WITHIN);
        for listener in listeners {
            server = server.listen(listener)?;
        }
        let server = server.shutdown_timeout(DRAINED_WITHIN.as_secs()).run();
        let handle = server.handle();
        Ok(Self { api, handle, running: tokio::spawn(server) })
    }

    /// Takes no more connections, and waits until the requests under way are answered. Long polls end at once. The
    /// supervisor runs on: shut it down next.
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
