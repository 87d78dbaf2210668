//! Programs that run until Ctrl-C, as people start and end them.

#![expect(unreachable_pub, reason = "shared by the modules of this binary")]

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use crate::support::eventually;

/// A process, and what it has said so far. Killed if the test ends before it does.
pub struct Running {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = Arc::<Mutex<Vec<String>>>::default();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = vec![read(stdout, said.clone()), read(stderr, said.clone())];
        Self { child, said, readers }
    }

    /// Every line so far, of both outputs.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// The first line for which this finds something, once there is one.
    pub async fn finds<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let found = || self.said().iter().find_map(|line| find(line));
        eventually(what, || found().is_some() || self.readers.iter().all(JoinHandle::is_finished)).await;
        found().unwrap_or_else(|| panic!("it ended before {what}: {:?}", self.said()))
    }

    /// Where it listens, as a line says behind this word.
    pub async fn url(&mut self, word: &str) -> String {
        let url = |line: &str| Some(line.strip_prefix(word)?.split_whitespace().next()?.to_owned());
        self.finds("it says where it listens", url).await
    }

    /// Ctrl-C: its exit code and all that it said.
    pub async fn interrupt(mut self) -> (Option<i32>, Vec<String>) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        eventually("it ends", || self.readers.iter().all(JoinHandle::is_finished)).await;
        (self.child.wait().unwrap().code(), self.said())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(output: impl Read + Send + 'static, said: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            said.lock().unwrap().push(line);
        }
    })
}
