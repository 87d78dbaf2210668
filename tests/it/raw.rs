//! A token endpoint that sends exactly these bytes, one response for each request, and logs what it got.

#![expect(unreachable_pub, reason = "shared by the modules of this binary")]

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A request: its head and its form.
#[derive(Clone, Debug)]
pub struct Logged {
    pub head: String,
    pub form: Vec<(String, String)>,
}

impl Logged {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

type Answer = dyn Fn(usize, &Logged) -> Vec<u8> + Send + Sync;

#[derive(Clone)]
pub struct RawIdp {
    pub address: std::net::SocketAddr,
    log: Arc<Mutex<Vec<Logged>>>,
}

impl RawIdp {
    /// Answers by the number of the request and by the request.
    pub async fn start(answer: impl Fn(usize, &Logged) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let idp = Self { address: listener.local_addr().unwrap(), log: Arc::default() };
        let (serving, answer) = (idp.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (serving, answer) = (serving.clone(), answer.clone());
                tokio::spawn(async move { serving.serve(stream, &*answer).await });
            }
        });
        idp
    }

    /// One request, one response, the end.
    async fn serve(&self, mut stream: TcpStream, answer: &Answer) -> Option<()> {
        let mut request = Vec::new();
        let logged = loop {
            stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if length.is_none_or(|length: usize| body.len() >= length) {
                let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
                break Logged { head: head.to_owned(), form };
            }
        };
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push(logged.clone());
            log.len() - 1
        };
        stream.write_all(&answer(number, &logged)).await.ok()
    }

    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub fn log(&self) -> Vec<Logged> {
        self.log.lock().unwrap().clone()
    }
}

/// A complete response with these header lines and this body.
pub fn with_head(status: u16, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub fn json(status: u16, body: &str) -> Vec<u8> {
    with_head(status, "Content-Type: application/json\r\n", body.as_bytes())
}
