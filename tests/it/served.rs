//! The program's server as a process of its own, and who asks it.

#![expect(unreachable_pub, reason = "shared by the modules of this binary")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::support::eventually;

/// A running server. It is killed when this is dropped.
pub struct Served {
    child: Child,
    /// Where it listens, as it said: URLs, and `unix:PATH`.
    pub addresses: Vec<String>,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Served {
    /// Runs `serve` as this command is prepared, and waits until it listens.
    ///
    /// # Errors
    /// What it said when it ended instead.
    pub fn start(mut command: Command) -> Result<Self, String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let written = log.clone();
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *written.lock().unwrap() += &(line + "\n");
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(json) = serde_json::from_str::<Value>(&line) else {
            child.wait().unwrap();
            reader.join().unwrap();
            return Err(log.lock().unwrap().clone());
        };
        let addresses = json["serving"].as_array().unwrap().iter().map(|at| at.as_str().unwrap().to_owned());
        Ok(Self { addresses: addresses.collect(), child, log, reader: Some(reader) })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A request to the first address.
    pub fn ask(&self, method: Method, path: &str, key: Option<&str>) -> RequestBuilder {
        let request = Client::new().request(method, format!("{}{path}", self.addresses[0]));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// By its name: TERM, INT, HUP, KILL.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until its log has these words.
    pub async fn logs(&self, words: &str) {
        eventually(words, || self.log.lock().unwrap().contains(words)).await;
    }

    /// Waits for its end: how it ended, and what it logged.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("the server ends", || child.borrow_mut().try_wait().unwrap().is_some()).await;
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.log.lock().unwrap().clone())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
