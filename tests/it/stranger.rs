//! A host that should get no secret.

#![expect(unreachable_pub, reason = "shared by the modules of this binary")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

/// A stranger that answers every request in the same way and keeps the heads.
pub struct Stranger {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Stranger {
    pub fn answering(answer: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (hears, answer) = (heard.clone(), answer.into());
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (mut head, mut buffer) = (String::new(), [0; 4_096]);
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    head += &String::from_utf8_lossy(&buffer[..read]);
                    if head.contains("\r\n\r\n") {
                        break;
                    }
                }
                // Kept before it is answered: who gets the answer can look.
                hears.lock().unwrap().push(head);
                stream.write_all(format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n").as_bytes()).ok();
            }
        });
        Self { address, heard }
    }

    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// The variables that name a proxy to one program or another.
pub const PROXIES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
