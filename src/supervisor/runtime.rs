//! The threads a supervisor lives on: a tokio runtime for attempts, and an actix System for registry and actors.
//!
//! The System's thread replaces a registry that dies, and the System if that ends. Attempts and store
//! operations run on neither, so they outlive both.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use actix::{Actor, Addr, System};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    core::Core,
    handle::{Shared, Shutdown},
    registry::{FrontActor, RegistryActor, Routes},
};

/// What keeps a supervisor running. Dropping it starts a shutdown without waiting.
pub(crate) struct Life {
    pub(super) shared: Shared,
    front: watch::Receiver<Option<Addr<FrontActor>>>,
    orders: mpsc::UnboundedSender<Order>,
    /// Ends when the System's thread does.
    system: watch::Receiver<bool>,
    background: Mutex<Vec<JoinHandle<()>>>,
    /// Only taken by `drop`.
    runtime: Option<Runtime>,
}

/// What the System's thread is told.
enum Order {
    Stop,
    /// End the System as if it had crashed.
    #[cfg(feature = "testing")]
    Crash,
}

/// A registry that dies more often than this in a row is given a moment.
const BREATH: Duration = Duration::from_millis(10);

/// How long a dropped supervisor still waits for attempts in flight.
const DRAIN_AFTER_DROP: Duration = Duration::from_secs(180);

impl Life {
    /// Starts the System's thread; resolves once registry and front are there.
    pub(super) async fn start(core: Arc<Core>, runtime: Runtime) -> std::io::Result<Self> {
        let (registry, registries) = watch::channel(None);
        let (fronts, mut front) = watch::channel(None);
        let (orders, inbox) = mpsc::unbounded_channel();
        let (alive, system) = watch::channel(true);
        let shared = Shared { core, routes: Routes::new(registries) };
        let for_system = shared.clone();
        thread::Builder::new().name("token-supervisor".to_owned()).spawn(move || {
            run_system(&for_system, &registry, &fronts, inbox);
            drop((for_system, registry, fronts));
            alive.send_replace(false);
        })?;
        let life =
            Self { shared, front: front.clone(), orders, system, background: Mutex::default(), runtime: Some(runtime) };
        front.wait_for(Option::is_some).await.map_err(|_| std::io::Error::other("its thread ended at once"))?;
        Ok(life)
    }

    /// Runs a task until the supervisor stops; shutdown waits for it.
    pub(super) fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let core = self.shared.core.clone();
        let task = core.runtime.clone().spawn(async move {
            tokio::select! {
                () = task => {}
                () = core.stopped() => {}
            }
        });
        self.tasks().push(task);
    }

    pub(super) fn front(&self) -> Addr<FrontActor> {
        // `start` waited for the first one, and it is only ever replaced.
        self.front.borrow().clone().expect("a front actor was started")
    }

    pub(super) async fn shutdown(&self, within: Duration) -> Shutdown {
        let core = &self.shared.core;
        let before = core.attempts.finished();
        core.attempts.close();
        core.stopping.send_replace(true);
        tokio::select! {
            () = core.attempts.below(1) => {}
            () = core.clock.sleep(within) => {}
        }
        let abandoned = core.attempts.len();
        let finished = core.attempts.finished() - before;
        if abandoned == 0 {
            let background = std::mem::take(&mut *self.tasks());
            for task in background {
                task.await.ok();
            }
            self.orders.send(Order::Stop).ok();
            self.system.clone().wait_for(|alive| !alive).await.ok();
            core.store.close().await.ok();
            core.events.close();
        }
        Shutdown { finished, abandoned }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn crash_system(&self) {
        self.orders.send(Order::Crash).ok();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let core = self.shared.core.clone();
        core.attempts.close();
        core.stopping.send_replace(true);
        self.orders.send(Order::Stop).ok();
        let Some(runtime) = self.runtime.take() else { return };
        if core.attempts.len() == 0 {
            return runtime.shutdown_background();
        }
        let drain = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = core.attempts.below(1) => {}
                    () = core.clock.sleep(DRAIN_AFTER_DROP) => {}
                }
            });
            runtime.shutdown_background();
        };
        // Without a thread the attempts in flight end here, and their intents tell the next process.
        thread::Builder::new().name("token-supervisor-drain".to_owned()).spawn(drain).ok();
    }
}

/// The System's thread: one System after the other until it is told to stop.
fn run_system(
    shared: &Shared,
    registry: &watch::Sender<Option<Addr<RegistryActor>>>,
    fronts: &watch::Sender<Option<Addr<FrontActor>>>,
    mut inbox: mpsc::UnboundedReceiver<Order>,
) {
    loop {
        let stop = System::new().block_on(async {
            fronts.send_replace(Some(FrontActor::new(shared.clone()).start()));
            guard_registry(shared, registry, &mut inbox).await
        });
        if stop {
            return;
        }
        tracing::error!("the actors' System ended and is started again");
    }
}

/// Starts the registry and replaces it when it dies. Resolves to whether to stop for good.
async fn guard_registry(
    shared: &Shared,
    registry: &watch::Sender<Option<Addr<RegistryActor>>>,
    inbox: &mut mpsc::UnboundedReceiver<Order>,
) -> bool {
    let (ended, mut endings) = mpsc::unbounded_channel();
    loop {
        registry.send_replace(Some(RegistryActor::new(shared.clone(), ended.clone()).start()));
        tokio::select! {
            _ = endings.recv() => {
                tracing::error!("the registry died and is replaced");
                shared.core.clock.sleep(BREATH).await;
            }
            order = inbox.recv() => return match order {
                Some(Order::Stop) | None => true,
                #[cfg(feature = "testing")]
                Some(Order::Crash) => false,
            },
        }
    }
}
