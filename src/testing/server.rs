//! The HTTP/1.1 server, on a thread with its own small runtime: the program under test may block or
//! stop its runtimes without any effect on the provider.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread::JoinHandle,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{DATE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

use super::{
    ManualClock, Profile,
    answer::Body,
    endpoint::{self, EndpointReply},
    state::IdpShared,
};
use crate::clock::Clock;

/// The running server. Dropping it closes every connection and waits for the thread.
pub(super) struct IdpServer {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<IdpShared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IdpServer {
    /// Listens on a free port of 127.0.0.1. Without a manual clock, the server uses the system clock.
    pub(super) fn start(profile: Profile, clock: Option<&ManualClock>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let clock = clock.map_or_else(|| Clock::system(runtime.handle().clone()), Clock::manual);
        let shared = Arc::new(IdpShared::new(profile, clock));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("simulated-idp".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || runtime.block_on(accept(listener, shared, stopped))
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for IdpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server was printed, and tests fail because a response is missing.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<IdpShared>, mut stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&shared)))),
            // The peer has disconnected, or the process has no file descriptor left: let other tasks run.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<IdpShared>) {
    let _ = stream.set_nodelay(true);
    let left = Arc::new(AtomicUsize::new(UNLIMITED));
    let io = TokioIo::new(Cut { stream, left: Arc::clone(&left) });
    let service = service_fn(move |request| one(request, Arc::clone(&shared), Arc::clone(&left)));
    // This fails if the client disconnects, and on purpose if a fault closes the connection.
    let _ = http1::Builder::new().serve_connection(io, service).await;
}

/// Handles one request. An error closes the connection without a response.
async fn one(request: Request<Incoming>, shared: Arc<IdpShared>, left: Arc<AtomicUsize>) -> io::Result<Response<Body>> {
    left.store(UNLIMITED, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    // An incomplete request ends here and is not counted.
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| closed())?.to_bytes();
    let dated = |mut response: Response<Body>| {
        let date = httpdate::fmt_http_date(shared.now().into());
        response.headers_mut().entry(DATE).or_insert(HeaderValue::from_str(&date).expect("a date is plain ASCII"));
        response
    };
    // On its own task, the request is processed even if the client disconnects meanwhile.
    match tokio::spawn(endpoint::handle(shared.clone(), head, body)).await {
        Ok(EndpointReply::Answer(response)) => Ok(dated(response)),
        Ok(EndpointReply::Cut(response, bytes)) => {
            left.store(bytes, Ordering::Relaxed);
            Ok(dated(response))
        }
        Ok(EndpointReply::Close) | Err(_) => Err(closed()),
    }
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

const MAX_BODY: usize = 1 << 20;
const UNLIMITED: usize = usize::MAX;

/// A stream that fails after `left` more bytes are written; hyper then closes it.
struct Cut {
    stream: TcpStream,
    /// Set by the current request.
    left: Arc<AtomicUsize>,
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let allowed = &buf[..buf.len().min(left)];
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, allowed))?;
        if left != UNLIMITED {
            self.left.store(left - written, Ordering::Relaxed);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
