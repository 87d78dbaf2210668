//! The socket of a connection. It gives the HTTP implementation one request at a time, and tells the [`Peer`] how it
//! proceeds: actix-http by itself accepts any number of requests at once, and waits for a peer that does not read for ever.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use memchr::{memchr, memchr_iter};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::peer::{PART, Peer};

/// A socket that reads the next request when the response to the one before is written.
#[derive(Debug)]
pub(super) struct PacedStream<S: Socket> {
    socket: S,
    peer: Arc<Peer>,
    /// What was read too early: the beginning of a body, or further requests.
    ahead: Vec<u8>,
    /// Whether the line that is being read is empty so far.
    in_empty_line: bool,
    /// Set after the last byte of a head: the request has to be dispatched before anything else is read.
    is_paused: bool,
    is_blocked: bool,
}

/// A socket that the server accepts.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + 'static {
    fn address_of_peer(&self) -> Option<SocketAddr>;

    /// Makes the operating system discard what the peer has not read when the socket is dropped.
    fn abort(&self);
}

impl Socket for TcpStream {
    fn address_of_peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn abort(&self) {
        self.set_zero_linger().ok();
    }
}

#[cfg(unix)]
impl Socket for tokio::net::UnixStream {
    fn address_of_peer(&self) -> Option<SocketAddr> {
        None
    }

    fn abort(&self) {}
}

thread_local! {
    /// Where a part of a larger buffer is read: `buf` itself would have to be filled with zeros first.
    static SCRATCH: RefCell<[u8; PART]> = const { RefCell::new([0; PART]) };
}

/// How much is read ahead. It shows that a connection was closed.
const AHEAD: usize = 4 * 1024;
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl<S: Socket> PacedStream<S> {
    pub(super) fn new(socket: S, peer: Arc<Peer>) -> Self {
        Self { socket, peer, ahead: Vec::new(), in_empty_line: false, is_paused: false, is_blocked: false }
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Returns the length of the head that ends in these bytes.
    fn end_of_head(&mut self, bytes: &[u8]) -> Option<usize> {
        let is_blank = |line: &[u8]| line.iter().all(|byte| *byte == b'\r');
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            if self.in_empty_line && is_blank(&bytes[start..end]) {
                return Some(end + 1);
            }
            (start, self.in_empty_line) = (end + 1, true);
        }
        self.in_empty_line &= is_blank(&bytes[start..]);
        None
    }
}

impl<S: Socket> PacedStream<S> {
    /// Reads a little ahead, without giving it to the reader; `Ready` if the connection was closed.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; 1024];
        while self.ahead.len() < AHEAD {
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // Requests before the end get their responses.
                return if self.ahead.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.ahead.extend_from_slice(chunk.filled());
        }
        Poll::Pending
    }

    /// Reads at most this many bytes.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() && most >= buf.remaining() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let most = most.min(buf.remaining());
        if self.ahead.is_empty() {
            return SCRATCH.with_borrow_mut(|scratch| {
                let room = most.min(scratch.len());
                let mut part = ReadBuf::new(&mut scratch[..room]);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
                buf.put_slice(part.filled());
                // It may hold an API key.
                part.filled_mut().fill(0);
                Poll::Ready(Ok(()))
            });
        }
        let taken = self.ahead.len().min(most);
        buf.put_slice(&self.ahead[..taken]);
        self.ahead.drain(..taken);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> Drop for PacedStream<S> {
    fn drop(&mut self) {
        if self.is_blocked {
            self.socket.abort();
        }
    }
}

impl<S: Socket> AsyncRead for PacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let may_read = self.peer.may_read();
        if std::mem::take(&mut self.is_paused) || may_read == 0 {
            let ahead = self.poll_ahead(cx);
            match may_read {
                _ if self.ahead.is_empty() => {}
                0 => self.peer.hold(cx.waker()),
                _ => cx.waker().wake_by_ref(),
            }
            return ahead;
        }
        let before = buf.filled().len();
        ready!(self.poll_next(cx, buf, may_read))?;
        let read = &buf.filled()[before..];
        if !self.peer.reads_head() {
            self.peer.sent(read.len());
            return Poll::Ready(Ok(()));
        }
        let end = self.end_of_head(read);
        let (head, rest) = read.split_at(end.unwrap_or(read.len()));
        let body = if end.is_some() { content_length(head).min(rest.len()) } else { 0 };
        if self.peer.sent_head(head.len(), body).is_err() {
            buf.set_filled(before);
            // A peer that reads nothing learns nothing.
            let _ = Pin::new(&mut self.socket).poll_write(cx, TOO_LARGE);
            let error = io::Error::new(io::ErrorKind::InvalidData, "the head of the request is too long");
            return Poll::Ready(Err(error));
        }
        if end.is_some() {
            self.ahead.splice(..0, rest[body..].iter().copied());
            let read = head.len() + body;
            buf.set_filled(before + read);
            (self.in_empty_line, self.is_paused) = (false, true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for PacedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        match &written {
            Poll::Pending => {
                self.is_blocked = true;
                self.peer.blocks();
            }
            Poll::Ready(Ok(bytes)) if self.is_blocked && *bytes < buf.len() => self.peer.has_read(*bytes),
            Poll::Ready(_) if self.is_blocked => {
                self.is_blocked = false;
                self.peer.has_read_all();
            }
            Poll::Ready(_) => {}
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        self.poll_write(cx, first)
    }
}

/// The length of the body that follows this head, as far as the head says it here.
fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let length = |line: &[u8]| {
        let value =
            line.get(..NAME.len()).filter(|name| name.eq_ignore_ascii_case(NAME)).map(|_| &line[NAME.len()..])?;
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    };
    let mut lines = memchr_iter(b'\n', head).map(|end| &head[end + 1..]);
    lines.find_map(|rest| length(&rest[..memchr(b'\n', rest).unwrap_or(rest.len())])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        task::Wake,
    };

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    impl Socket for DuplexStream {
        fn address_of_peer(&self) -> Option<SocketAddr> {
            None
        }

        fn abort(&self) {}
    }

    /// Whether it was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Reads what the stream gives until it has to wait.
    fn read(stream: &mut PacedStream<impl Socket>) -> Vec<u8> {
        let (mut all, mut chunk) = (Vec::new(), [0; 100]);
        while let Some(Ok(read @ 1..)) = stream.read(&mut chunk).now_or_never() {
            all.extend_from_slice(&chunk[..read]);
        }
        all
    }

    #[tokio::test]
    async fn requests_are_given_one_at_a_time() {
        let (mut client, server) = duplex(64 * 1024);
        let peer = Peer::new(None, None);
        let mut stream = PacedStream::new(server, peer.clone());
        client.write_all(GET.repeat(1_000).as_bytes()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(read(&mut stream), GET.as_bytes());
        }
        assert!(stream.ahead.len() <= AHEAD + 100, "{}", stream.ahead.len());
        assert!(peer.may_read() > 0);
    }

    #[tokio::test]
    async fn a_request_that_was_read_too_early_wakes_the_reader_after_the_response() {
        let (mut client, server) = duplex(64 * 1024);
        let peer = Peer::new(None, None);
        let mut stream = PacedStream::new(server, peer.clone());
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(read(&mut stream), GET.as_bytes());
        for arrives_in_time in [false, true] {
            let woken = Arc::new(Woken::default());
            let mut chunk = [0; 100];
            peer.carry_out(true);
            if arrives_in_time {
                client.write_all(GET.as_bytes()).await.unwrap();
            }
            let mut chunk = ReadBuf::new(&mut chunk);
            let waker = woken.clone().into();
            assert!(Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut chunk).is_pending());
            peer.carry_out(false);
            assert_eq!(woken.0.load(Ordering::Relaxed), arrives_in_time, "the socket wakes for what comes later");
        }
        assert_eq!(read(&mut stream), GET.as_bytes());
    }

    #[tokio::test]
    async fn a_head_may_arrive_in_pieces_and_a_body_follows_it() {
        for request in ["\r\nPUT / HTTP/1.1\r\nX: y\r\n\r\nbody", "PUT / HTTP/1.1\nX: y\n\nbody"] {
            let (mut client, server) = duplex(1_024);
            let mut stream = PacedStream::new(server, Peer::new(None, None));
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read(&mut stream), request.strip_suffix("body").unwrap().as_bytes());
            assert_eq!(read(&mut stream), b"body");
            let mut stream = Vec::new();
            let (mut client, server) = duplex(1_024);
            let mut paced = PacedStream::new(server, Peer::new(None, None));
            for byte in request.as_bytes() {
                client.write_all(&[*byte]).await.unwrap();
                stream.extend(read(&mut paced));
            }
            assert_eq!(stream, request.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_body_of_known_length_comes_with_its_head() {
        let (mut client, server) = duplex(1_024);
        let mut stream = PacedStream::new(server, Peer::new(None, None));
        let put = "PUT / HTTP/1.1\r\ncontent-Length: 4\r\n\r\nbody";
        client.write_all(format!("{put}{GET}").as_bytes()).await.unwrap();
        assert_eq!(read(&mut stream), put.as_bytes());
        assert_eq!(read(&mut stream), GET.as_bytes());
    }

    #[tokio::test]
    async fn a_body_does_not_count_as_head() {
        let (mut client, server) = duplex(64 * 1024);
        let mut stream = PacedStream::new(server, Peer::new(None, None));
        let put = format!("PUT / HTTP/1.1\r\nx: {}\r\ncontent-length: 20000\r\n\r\n", "y".repeat(15_000));
        client.write_all(put.as_bytes()).await.unwrap();
        client.write_all(&[b'z'; 20_000]).await.unwrap();
        let (mut all, mut chunk) = (0, vec![0; 64 * 1024]);
        while all < put.len() {
            all += stream.read(&mut chunk).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_seen_behind_the_last_request() {
        let (mut client, server) = duplex(1_024);
        let mut stream = PacedStream::new(server, Peer::new(None, None));
        client.write_all(GET.repeat(2).as_bytes()).await.unwrap();
        drop(client);
        assert_eq!(read(&mut stream), GET.as_bytes());
        assert_eq!(read(&mut stream), GET.as_bytes());
        assert_eq!(stream.read(&mut [0; 8]).now_or_never().unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_answered() {
        let (mut client, server) = duplex(64 * 1024);
        let mut stream = PacedStream::new(server, Peer::new(None, None));
        client.write_all(&[b'x'; 40_000]).await.unwrap();
        let mut all = Vec::new();
        assert!(stream.read_to_end(&mut all).await.is_err());
        drop(stream);
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
    }
}
