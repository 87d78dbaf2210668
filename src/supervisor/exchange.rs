//! The talk between the processes at one store: tells the others what this one has stored, and hears what they have.
//!
//! A change that another process has stored makes this one read the row again, if the key's token is published here or its
//! actor runs. What could have been missed is made up for: after the line was interrupted, and after another process died,
//! everything that is published is compared with the store. A process that hears nothing for long hands out nothing that it
//! has not just read.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
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
    store::{Line, Say, StoreError},
};

/// Rows that are compared with what is published at the same time.
const COMPARED_AT_ONCE: usize = 8;

/// How long a process that stops tries to tell the others what it has stored last.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct ReplicaExchange {
    refresher: Refresher,
    router: Router,
    served_unheard: Duration,
}

/// A running exchange.
pub(super) struct RunningExchange {
    refresher: Refresher,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl RunningExchange {
    /// Tells the others what is left to tell, also of changes that are under way, and ends.
    pub(super) async fn end(&self) {
        let ports = self.refresher.ports();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        let replicas = ports.ledger.replicas();
        tokio::select! {
            () = replicas.none_changing() => {}
            () = ports.clock.sleep(FAREWELL) => {}
        }
        replicas.queue.close();
        tokio::select! {
            _ = &mut task => {}
            () = ports.clock.sleep(2 * FAREWELL) => task.abort(),
        }
    }
}

impl ReplicaExchange {
    /// `served_unheard` is how long published tokens are served while this process hears nothing of the others.
    pub(super) fn new(refresher: Refresher, router: Router, served_unheard: Duration) -> Self {
        Self { refresher, router, served_unheard }
    }

    /// Starts the exchange, if other processes can use the store. A process that does nothing `on_demand` is no replica: it
    /// tells the others what it has stored, and that is all.
    pub(super) fn start(self, on_demand: bool) -> RunningExchange {
        let refresher = self.refresher.clone();
        let is_shared = refresher.ports().ledger.replicas().is_shared();
        let task = is_shared.then(|| refresher.ports().runtime.spawn(self.keep_running(on_demand)));
        RunningExchange { refresher, task: Mutex::new(task) }
    }

    /// Runs the exchange, and again if it panics: without it, a process would serve what is out of date.
    async fn keep_running(self, on_demand: bool) {
        let (refresher, exchange) = (self.refresher.clone(), Arc::new(self));
        let ports = refresher.ports();
        loop {
            let exchange = exchange.clone();
            if ports.runtime.spawn(async move { exchange.run(on_demand).await }).await.is_ok() {
                return;
            }
            tracing::error!("the exchange with other replicas panicked and is started again");
            ports.ledger.replicas().compare();
            ports.clock.sleep(REPORTED_EVERY).await;
        }
    }

    async fn run(&self, on_demand: bool) {
        let ports = self.refresher.ports();
        let replicas = ports.ledger.replicas();
        let as_a_replica = async {
            match on_demand {
                true => std::future::pending().await,
                false => tokio::join!(self.keep_reporting(), self.keep_watch(), self.keep_comparing()),
            }
        };
        tokio::select! {
            () = self.keep_line() => {}
            _ = as_a_replica => {}
        }
        self.tell_without_line().await;
        if !replicas.queue.is_empty() {
            tracing::warn!(
                "the other replicas could not be told what was stored last: they notice it within half a minute"
            );
            // A report that is not renewed is a death to the others: they compare what they have with the store.
            ports.ledger.store().report(&replicas.name(), Some(self.report(true))).await.ok();
        } else if !on_demand {
            // Whoever finds no report knows that everything was told.
            ports.ledger.store().report(&replicas.name(), None).await.ok();
        }
    }

    fn report(&self, unheard: bool) -> Vec<u8> {
        let ports = self.refresher.ports();
        Replicas::report(ports.keyring.labels(), ports.journal.owner().public("j"), unheard, ports.is_stopping())
    }

    /// Reports again and again that this process lives, and proves that it hears the others.
    async fn keep_reporting(&self) {
        let ports = self.refresher.ports();
        let replicas = ports.ledger.replicas();
        let mut is_unheard = false;
        loop {
            let began = ports.clock.read().boot;
            let reported = ports.ledger.store().report(&replicas.name(), Some(self.report(is_unheard))).await;
            if reported.is_ok()
                && let Ok(reports) = ports.ledger.store().reports().await
            {
                let sighting = replicas.sight(reports);
                ports.providers.share(sighting.live);
                if sighting.untold {
                    tracing::warn!(
                        "another replica has died or is not heard: what is published is compared with the store"
                    );
                    replicas.compare();
                }
            }
            let number = replicas.next_echo();
            replicas.tell(|| News::Echo(number));
            let mut echoed = replicas.echoed.subscribe();
            tokio::select! {
                _ = echoed.wait_for(|echoed| *echoed >= number) => {
                    replicas.heard(began);
                    is_unheard = false;
                }
                () = ports.clock.sleep(REPORTED_EVERY) => is_unheard = true,
            }
            ports.clock.sleep(REPORTED_EVERY).await;
        }
    }

    /// Looks again and again whether this process hears the others; nothing that waits for the store holds this up.
    async fn keep_watch(&self) {
        let ports = self.refresher.ports();
        let replicas = ports.ledger.replicas();
        let mut was_cut_off = false;
        loop {
            ports.clock.sleep(REPORTED_EVERY).await;
            let is_cut_off = replicas.unheard(ports.clock.read().boot) >= self.served_unheard;
            if is_cut_off {
                self.withdraw(was_cut_off).await;
            } else if was_cut_off {
                // Watches have their tokens back only when their rows are read.
                replicas.compare();
            }
            was_cut_off = is_cut_off;
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

    /// Keeps a line open until everything was told and the process stops.
    async fn keep_line(&self) {
        let ports = self.refresher.ports();
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
                        () = self.listen(heard) => {}
                        ended = self.tell(say) => match ended {
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
            self.tell_without_line().await;
            tokio::select! {
                () = ports.clock.sleep(delay(failures, None, 0).min(REPORTED_EVERY)) => {}
                () = replicas.queue.closing() => return,
            }
        }
    }

    /// Tells the others what there is to tell, until everything was told and the process stops.
    async fn tell(&self, say: Say) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        let (replicas, name) = (ports.ledger.replicas(), ports.ledger.replicas().name());
        while let Some(batch) = replicas.queue.next().await {
            say(texts(&ports.keyring, &name, &batch.news)).await?;
            replicas.queue.told(&batch);
        }
        Ok(())
    }

    /// Tells the others what there is to tell by other connections, while no line is open.
    async fn tell_without_line(&self) {
        let ports = self.refresher.ports();
        let replicas = ports.ledger.replicas();
        while !replicas.queue.is_empty()
            && let Some(batch) = replicas.queue.next().await
        {
            if ports.ledger.store().say(texts(&ports.keyring, &replicas.name(), &batch.news)).await.is_err() {
                return;
            }
            replicas.queue.told(&batch);
        }
    }

    /// Hears what the others say until the line ends.
    async fn listen(&self, mut heard: mpsc::Receiver<String>) {
        let ports = self.refresher.ports();
        let (replicas, own) = (ports.ledger.replicas(), ports.ledger.replicas().name());
        let mut was_foreign = false;
        while let Some(text) = heard.recv().await {
            let Some((from, news)) = hear(&ports.keyring, &text) else {
                if !std::mem::replace(&mut was_foreign, true) {
                    tracing::warn!(
                        "another program speaks on the line of the replicas, or a replica has keys that this one lacks: \
                         what it says is ignored"
                    );
                }
                continue;
            };
            for one in news {
                match one {
                    News::Echo(number) if from == own => {
                        let is_later = |echoed: &mut u64| std::mem::replace(echoed, number.max(*echoed)) < number;
                        replicas.echoed.send_if_modified(is_later);
                    }
                    News::Echo(_) => {}
                    _ if from == own => {}
                    News::Changed(changed) => take_change(ports, &self.router, &changed).await,
                    News::Rejected { key, generation } => {
                        let key = TokenKey::from(&key);
                        if ports.snapshot.current(&key).is_some_and(|issued| issued.generation == generation) {
                            route(ports, &self.router, key, Ask::RejectedElsewhere { generation }).await;
                        }
                    }
                    News::Holds => {
                        // What comes next must not wait for it. A hold that cannot be read is read with the next sweep.
                        let refresher = self.refresher.clone();
                        let read = async move {
                            refresher.ports().providers.read_holds(&refresher.ports().ledger).await.ok();
                        };
                        ports.runtime.spawn(read);
                    }
                    News::Everything => replicas.compare(),
                }
            }
        }
    }

    /// Compares what is published with the store whenever something may have been missed. What is missed meanwhile is
    /// compared afterwards: a comparison is not begun anew again and again.
    async fn keep_comparing(&self) {
        let (ports, router) = (self.refresher.ports(), &self.router);
        let replicas = ports.ledger.replicas();
        let mut wanted = replicas.to_compare.subscribe();
        loop {
            // The sender is here.
            wanted.wait_for(|wanted| *wanted).await.ok();
            replicas.to_compare.send_replace(false);
            // First the actors, which may be about to publish what they have read before; then what is published.
            while let Err(Error::Busy { retry_after }) = router.route_to_all_awake().await {
                ports.clock.sleep(retry_after).await;
            }
            let mut keys = ports.snapshot.keys();
            keys.extend(ports.attempts.keys());
            stream::iter(keys).for_each_concurrent(COMPARED_AT_ONCE, |key| compare(ports, router, key)).await;
            replicas.compared();
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
            ports.ledger.events().emit(event.emitted_elsewhere());
        }
    }
}

/// Hands a request to the registry. What it has no room for is made up for by a comparison.
async fn route(ports: &Ports, router: &Router, key: TokenKey, ask: Ask) {
    if let Err(Error::Busy { .. }) = router.route(key, ask).await {
        ports.ledger.replicas().compare();
    }
}

/// Has the row of a key read again if it differs from what is published. Waits for a store that does not respond.
async fn compare(ports: &Ports, router: &Router, key: TokenKey) {
    let mut failures = 0;
    loop {
        let Some(issued) = ports.snapshot.current(&key) else {
            if ports.snapshot.is_watched(&key) || ports.attempts.runs_for(&key) {
                route(ports, router, key, Ask::Stale).await;
            }
            return;
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
