//! The way to PostgreSQL: one proxy for each replica, which loses replies, stalls and cuts connections.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::dice::Dice;

/// Forwards connections to the server until it is dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    faults: Arc<Faults>,
    task: JoinHandle<()>,
}

struct Faults {
    dice: Mutex<Dice>,
    /// Of a thousand replies, so many are lost, each with its connection.
    loss: AtomicU64,
    /// Replies wait.
    stalled: watch::Sender<bool>,
    /// Counts the times at which all connections were cut.
    cuts: watch::Sender<usize>,
    lost: AtomicUsize,
}

impl Proxy {
    pub(super) async fn start(server: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let faults = Arc::new(Faults {
            dice: Mutex::new(Dice(seed)),
            loss: AtomicU64::new(0),
            stalled: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            lost: AtomicUsize::new(0),
        });
        let port = listener.local_addr().unwrap().port();
        let shared = faults.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, shared.clone()));
            }
        });
        Self { port, faults, task }
    }

    /// From now on so many of a thousand replies are lost: the server has done what it was asked, and nobody hears of it.
    pub(super) fn lose(&self, per_mille: u64) {
        self.faults.loss.store(per_mille, Ordering::Relaxed);
    }

    /// Replies wait, until they do no more.
    pub(super) fn stall(&self, stalled: bool) {
        self.faults.stalled.send_replace(stalled);
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.faults.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Replies that were lost.
    pub(super) fn lost(&self) -> usize {
        self.faults.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Faults {
    fn loses(&self) -> bool {
        let loss = self.loss.load(Ordering::Relaxed);
        let lost = loss > 0 && self.dice.lock().unwrap().up_to(1_000) < loss;
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }
}

async fn forward(client: TcpStream, server: u16, faults: Arc<Faults>) {
    // While the server is away, its proxy hangs up.
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let mut cuts = faults.cuts.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = cuts.changed() => {}
        _ = requests(from_client, to_server) => {}
        _ = replies(from_server, to_client, &faults) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut part = vec![0; PART];
    loop {
        match from.read(&mut part).await? {
            0 => return Ok(()),
            read => to.write_all(&part[..read]).await?,
        }
    }
}

/// Ends with the first reply that is lost.
async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults) -> io::Result<()> {
    let mut stalled = faults.stalled.subscribe();
    let mut part = vec![0; PART];
    loop {
        let read = from.read(&mut part).await?;
        if read == 0 || faults.loses() {
            return Ok(());
        }
        // The sender lives as long as the faults.
        stalled.wait_for(|stalled| !stalled).await.ok();
        to.write_all(&part[..read]).await?;
    }
}

const PART: usize = 16 * 1024;
