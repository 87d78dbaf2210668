//! The talk between the processes at one store: tells the others what this one has stored, and hears what they have.
//!
//! A change that another process has stored makes this one read the row again, if the key's token is published here or its
//! actor runs. What could have been missed is made up for: after the line was interrupted, and after another process died,
//! everything that is published is compared with the store. A process that hears nothing for long hands out nothing that it
//! has not just read.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::Either, stream};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    command::Ask,
    events::TokenEvent,
    refresh::{Ports, Refresher},
    replicas::{ChangedNews, News, REPORTED_EVERY, Replicas, hear, texts},
    router::Router,
    snapshot::Published,
};
use crate::{
    error::Error,
    idp::delay,
    model::{Generation, TokenKey},
    store::{Line, StoreError, StoreFuture},
};

/// Rows that are compared with what is published at the same time.
const COMPARED_AT_ONCE: usize = 8;

/// How long a process that stops tries to tell the others what it has stored last.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct ReplicaExchange {
    refresher: Refresher,
    router: Router,
    served_unheard: Duration,
    /// Counts the proofs.
    echoes: u64,
}

/// A running exchange.
pub(super) struct RunningExchange {
    refresher: Refresher,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl RunningExchange {
    /// Tells the others what is left to tell, and ends.
    pub(super) async fn end(&self) {
        let ports = self.refresher.ports();
        ports.ledger.replicas().queue.close();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        tokio::select! {
            _ = &mut task => {}
            () = ports.clock.sleep(FAREWELL) => task.abort(),
        }
    }
}

impl ReplicaExchange {
    /// `served_unheard` is how long published tokens are served while this process hears nothing of the others.
    pub(super) fn new(refresher: Refresher, router: Router, served_unheard: Duration) -> Self {
        Self { refresher, router, served_unheard, echoes: 0 }
    }

    /// Starts the exchange, if other processes can use the store. A process that does nothing `on_demand` is no replica: it
    /// tells the others what it has stored, and that is all.
    pub(super) fn start(self, on_demand: bool) -> RunningExchange {
        let refresher = self.refresher.clone();
        let is_shared = refresher.ports().ledger.replicas().is_shared();
        let task = is_shared.then(|| refresher.ports().runtime.spawn(self.run(on_demand)));
        RunningExchange { refresher, task: Mutex::new(task) }
    }

    async fn run(mut self, on_demand: bool) {
        let refresher = self.refresher.clone();
        let (ports, router) = (refresher.ports(), self.router.clone());
        let replicas = ports.ledger.replicas();
        let reporting = async {
            match on_demand {
                true => std::future::pending().await,
                false => self.keep_reporting().await,
            }
        };
        let comparing = keep_comparing(ports, &router);
        tokio::select! {
            () = keep_line(ports, &router) => {}
            () = reporting => {}
            () = comparing => {}
        }
        if !on_demand && replicas.queue.is_empty() {
            // Whoever finds no report knows that everything was told.
            ports.ledger.store().report(&replicas.name(), None).await.ok();
        }
    }

    /// Reports again and again that this process lives, and proves that it hears the others.
    async fn keep_reporting(&mut self) {
        let refresher = self.refresher.clone();
        let ports = refresher.ports();
        let replicas = ports.ledger.replicas();
        let mut was_cut_off = false;
        loop {
            let began = ports.clock.read().boot;
            let report = Replicas::report(ports.keyring.labels(), ports.journal.owner().public("j"));
            let reported = ports.ledger.store().report(&replicas.name(), Some(report)).await;
            if reported.is_ok()
                && let Ok(reports) = ports.ledger.store().reports().await
            {
                let sighting = replicas.sight(reports);
                ports.providers.share(sighting.live);
                if sighting.died {
                    tracing::warn!("another replica has died: what is published is compared with the store");
                    replicas.compare();
                }
            }
            self.echoes += 1;
            let number = self.echoes;
            replicas.tell(|| News::Echo(number));
            let mut echoed = replicas.echoed.subscribe();
            tokio::select! {
                _ = echoed.wait_for(|echoed| *echoed >= number) => replicas.heard(began),
                () = ports.clock.sleep(REPORTED_EVERY) => {}
            }
            let now = ports.clock.read().boot;
            let is_cut_off = replicas.unheard(now) >= self.served_unheard;
            if is_cut_off {
                self.withdraw(was_cut_off).await;
            } else if was_cut_off {
                // Watches have their tokens back only when their rows are read.
                replicas.compare();
            }
            was_cut_off = is_cut_off;
            ports.clock.sleep(REPORTED_EVERY).await;
        }
    }

    /// Hands out nothing that was not just read.
    async fn withdraw(&self, again: bool) {
        let ports = self.refresher.ports();
        if !again {
            tracing::warn!(
                seconds = self.served_unheard.as_secs(),
                "nothing was heard of the other replicas for long: each token is read from the store before it is handed out"
            );
        }
        ports.snapshot.withdraw_all(|key| ports.attempts.runs_for(key));
        self.router.route_to_all_awake().await.ok();
    }
}

/// Keeps a line open until everything was told and the process stops.
async fn keep_line(ports: &Ports, router: &Router) {
    let replicas = ports.ledger.replicas();
    let mut failures = 0;
    loop {
        let Some(opening) = ports.ledger.store().open_line() else { return };
        match opening.await {
            Ok(Line { heard, say }) => {
                failures = 0;
                // What was published before may have been changed unheard.
                replicas.compare();
                tokio::select! {
                    () = listen(ports, router, heard) => {}
                    ended = tell(ports, say) => match ended {
                        Ok(()) => return,
                        Err(error) => tracing::debug!(error = %error, "the other replicas could not be told"),
                    }
                }
                tracing::warn!("the line to the other replicas was interrupted: it is opened again");
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(error = %error, "there is no line to the other replicas: opening it is tried again");
                }
                failures += 1;
            }
        }
        tokio::select! {
            () = ports.clock.sleep(delay(failures, None, 0).min(REPORTED_EVERY)) => {}
            () = replicas.queue.closing() => return,
        }
    }
}

/// Tells the others what there is to tell, until everything was told and the process stops.
async fn tell(ports: &Ports, say: Box<dyn Fn(Vec<String>) -> StoreFuture<()> + Send + Sync>) -> Result<(), StoreError> {
    let replicas = ports.ledger.replicas();
    let name = replicas.name();
    while let Some(batch) = replicas.queue.next().await {
        say(texts(&name, &batch.news)).await?;
        replicas.queue.told(&batch);
    }
    Ok(())
}

/// Hears what the others say until the line ends.
async fn listen(ports: &Ports, router: &Router, mut heard: mpsc::Receiver<String>) {
    let replicas = ports.ledger.replicas();
    let own = replicas.name();
    while let Some(text) = heard.recv().await {
        let Some((from, news)) = hear(&text) else { continue };
        for one in news {
            match one {
                News::Echo(number) if from == own => {
                    replicas.echoed.send_if_modified(|echoed| std::mem::replace(echoed, number.max(*echoed)) < number);
                }
                _ if from == own => {}
                News::Echo(_) => {}
                News::Changed(changed) => take_change(ports, router, &changed).await,
                News::Rejected { key, generation } => {
                    let key = TokenKey::from(&key);
                    if ports.snapshot.current(&key).is_some_and(|issued| issued.generation == generation) {
                        route(ports, router, key, Ask::RejectedElsewhere { generation }).await;
                    }
                }
                // A hold that cannot be read is read with the next sweep.
                News::Holds => drop(ports.providers.read_holds(&ports.ledger).await),
                News::Everything => replicas.compare(),
            }
        }
    }
}

/// Takes notice of a change that another process has stored.
async fn take_change(ports: &Ports, router: &Router, changed: &ChangedNews) {
    let key = TokenKey::from(&changed.key);
    match ports.snapshot.outdate(&key, changed.generation.unwrap_or(Generation(u64::MAX))) {
        Published::Later => {}
        Published::Earlier => route(ports, router, key.clone(), Ask::Stale).await,
        Published::Nothing => route(ports, router, key.clone(), Ask::StaleIfAwake).await,
    }
    if let Some(wake_at) = changed.wake_at {
        ports.ledger.alarm().set(wake_at);
    }
    if let Some(events) = &changed.events {
        for transition in &events.transitions {
            let event = TokenEvent::of(&key, &events.grant_id, events.at, transition.clone().into());
            ports.ledger.events().emit(event.from_elsewhere());
        }
    }
}

/// Hands a request to the registry. What it has no room for is made up for by a comparison.
async fn route(ports: &Ports, router: &Router, key: TokenKey, ask: Ask) {
    if let Err(Error::Busy { .. }) = router.route(key, ask).await {
        ports.ledger.replicas().compare();
    }
}

/// Compares what is published with the store whenever something may have been missed.
async fn keep_comparing(ports: &Ports, router: &Router) {
    let replicas = ports.ledger.replicas();
    let mut wanted = replicas.to_compare.subscribe();
    loop {
        // The sender is here.
        wanted.wait_for(|wanted| *wanted).await.ok();
        replicas.to_compare.send_replace(false);
        let compared = async {
            // First the actors, which may be about to publish what they have read before; then what is published.
            while let Err(Error::Busy { retry_after }) = router.route_to_all_awake().await {
                ports.clock.sleep(retry_after).await;
            }
            let mut keys = ports.snapshot.keys();
            keys.extend(ports.attempts.keys());
            stream::iter(keys).for_each_concurrent(COMPARED_AT_ONCE, |key| compare(ports, router, key)).await;
        };
        let again = wanted.wait_for(|wanted| *wanted);
        if let Either::Left(_) = futures_util::future::select(Box::pin(compared), Box::pin(again)).await {
            replicas.compared();
        }
    }
}

/// Has the row of a key read again if it differs from what is published. Waits for a store that does not respond.
async fn compare(ports: &Ports, router: &Router, key: TokenKey) {
    let mut failures = 0;
    loop {
        let Some(issued) = ports.snapshot.current(&key) else {
            // It is watched and has no token, or an attempt runs for it.
            return route(ports, router, key, Ask::Stale).await;
        };
        match ports.ledger.store().read(&key).await {
            Ok(read) => {
                let is_same = read.row.is_some_and(|row| {
                    row.tombstone.is_none()
                        && row.generation == issued.generation
                        && row.standing() == issued.standing()
                });
                if !is_same {
                    route(ports, router, key, Ask::Stale).await;
                }
                return;
            }
            Err(StoreError::Corrupt { .. }) => return,
            Err(_) => {
                failures += 1;
                ports.clock.sleep(delay(failures, None, 0).min(REPORTED_EVERY)).await;
            }
        }
    }
}
