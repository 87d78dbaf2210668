//! The threads of a supervisor: a tokio runtime for attempts, and an actix System for registry and actors.
//!
//! The System's thread replaces a registry that dies, and the System if that ends. Attempts and operations of the store
//! run on neither, so they outlive both.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use actix::{Actor, Addr, Recipient, System};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    exchange::RunningExchange,
    front::{Front, FrontActor},
    recovery::Recovery,
    refresh::Refresher,
    registry::RegistryActor,
    router::RoutedRequest,
    token::Surroundings,
};

/// The threads of a running supervisor. Dropping it starts a shutdown without waiting.
pub(super) struct Life {
    refresher: Refresher,
    front: watch::Receiver<Option<Addr<FrontActor>>>,
    orders: mpsc::UnboundedSender<Order>,
    /// Turns false when the System's thread ends.
    system: watch::Receiver<bool>,
    background: Mutex<Vec<JoinHandle<()>>>,
    exchange: RunningExchange,
    recovery: Arc<Recovery>,
    /// Taken only by `drop`.
    runtime: Option<Runtime>,
}

/// The result of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Refreshes that were under way and are stored.
    pub finished: usize,
    /// Refreshes that were still under way at the deadline. Their responses are stored if they arrive before the
    /// process ends; if not, the next process finds their intents.
    pub abandoned: usize,
}

/// The System's thread keeps these for every registry and front that it starts.
struct Systems {
    around: Arc<Surroundings>,
    front: Front,
    registry: watch::Sender<Option<Recipient<RoutedRequest>>>,
    fronts: watch::Sender<Option<Addr<FrontActor>>>,
}

/// An order to the System's thread.
enum Order {
    Stop,
    /// End the System as if it had crashed.
    #[cfg(feature = "testing")]
    Crash,
}

/// The time between the death of a registry and the start of the next one.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a dropped supervisor still waits for attempts in flight.
const DRAIN_AFTER_DROP: Duration = Duration::from_secs(180);

impl Life {
    /// Starts the System's thread; resolves once registry and front run. `registry` tells the router which registry runs.
    pub(super) async fn start(
        runtime: Runtime,
        around: Arc<Surroundings>,
        front: Front,
        registry: watch::Sender<Option<Recipient<RoutedRequest>>>,
        exchange: RunningExchange,
        recovery: Arc<Recovery>,
    ) -> std::io::Result<Self> {
        let (fronts, mut front_of_now) = watch::channel(None);
        let (orders, inbox) = mpsc::unbounded_channel();
        let (alive, system) = watch::channel(true);
        let refresher = around.refresher.clone();
        let systems = Systems { around, front, registry, fronts };
        thread::Builder::new().name("token-supervisor".to_owned()).spawn(move || {
            systems.run(inbox);
            drop(systems);
            alive.send_replace(false);
        })?;
        let front = front_of_now.clone();
        let (background, runtime) = (Mutex::default(), Some(runtime));
        let life = Self { refresher, front, orders, system, background, exchange, recovery, runtime };
        front_of_now.wait_for(Option::is_some).await.map_err(|_| std::io::Error::other("its thread ended at once"))?;
        Ok(life)
    }

    /// Runs a task until the supervisor stops; shutdown waits for it.
    pub(super) fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let refresher = self.refresher.clone();
        let task = self.refresher.ports().runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                () = refresher.stopped() => {}
            }
        });
        self.tasks().push(task);
    }

    pub(super) fn front(&self) -> Addr<FrontActor> {
        // `start` waited for the first one, and it is only ever replaced.
        self.front.borrow().clone().expect("a front actor was started")
    }

    pub(super) async fn shutdown(&self, within: Duration) -> Shutdown {
        let ports = self.refresher.ports();
        let attempts = &ports.attempts;
        let before = attempts.finished();
        self.refresher.stop();
        tokio::select! {
            () = attempts.none_left() => {}
            () = ports.clock.sleep(within) => {}
        }
        let abandoned = attempts.len();
        let finished = attempts.finished() - before;
        if abandoned == 0 {
            let background = std::mem::take(&mut *self.tasks());
            for task in background {
                task.await.ok();
            }
            self.orders.send(Order::Stop).ok();
            self.system.clone().wait_for(|alive| !alive).await.ok();
            self.recovery.leave().await;
            self.exchange.end().await;
            ports.ledger.store().close().await.ok();
            ports.ledger.events().close();
        }
        Shutdown { finished, abandoned }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "testing")]
    pub(super) fn crash_system(&self) {
        self.orders.send(Order::Crash).ok();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let refresher = self.refresher.clone();
        refresher.stop();
        self.orders.send(Order::Stop).ok();
        let Some(runtime) = self.runtime.take() else { return };
        if refresher.ports().attempts.len() == 0 {
            return runtime.shutdown_background();
        }
        let drain = move || {
            let ports = refresher.ports();
            runtime.block_on(async {
                tokio::select! {
                    () = ports.attempts.none_left() => {}
                    () = ports.clock.sleep(DRAIN_AFTER_DROP) => {}
                }
            });
            runtime.shutdown_background();
        };
        // Without a thread the attempts in flight end here, and the next process finds their intents.
        thread::Builder::new().name("token-supervisor-drain".to_owned()).spawn(drain).ok();
    }
}

impl Systems {
    /// Runs one System after the other until an order says stop.
    fn run(&self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        loop {
            let stop = System::new().block_on(async {
                self.fronts.send_replace(Some(FrontActor::new(self.front.clone()).start()));
                self.guard_registry(&mut inbox).await
            });
            if stop {
                return;
            }
            tracing::error!("the actors' System ended and is started again");
        }
    }

    /// Starts the registry and replaces it when it dies. Resolves to whether to stop for good.
    async fn guard_registry(&self, inbox: &mut mpsc::UnboundedReceiver<Order>) -> bool {
        let (ended, mut endings) = mpsc::unbounded_channel();
        loop {
            let registry = RegistryActor::new(self.around.clone(), ended.clone()).start();
            self.registry.send_replace(Some(registry.recipient()));
            tokio::select! {
                _ = endings.recv() => {
                    tracing::error!("the registry died and is replaced");
                    self.around.refresher.ports().clock.sleep(PAUSE).await;
                }
                order = inbox.recv() => return match order {
                    Some(Order::Stop) | None => true,
                    #[cfg(feature = "testing")]
                    Some(Order::Crash) => false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::TokenKey,
        supervisor::{bench::Bench, by::By, command::GetStatus, exchange::ReplicaExchange},
    };

    #[test]
    fn registry_and_system_are_replaced_until_the_shutdown() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        handle.block_on(async {
            let bench = Bench::in_real_time();
            let key = TokenKey::at("idp").user("alice");
            bench.connect(&key, "ts-test-secret-1").await;
            let (around, front, router, registry) = bench.assembled();
            let exchange = ReplicaExchange::new(bench.refresher.clone(), router.clone(), Duration::MAX).start(false);
            let recovery = Arc::new(Recovery::new(bench.refresher.clone(), router.clone()));
            let life = Life::start(runtime, around, front.clone(), registry, exchange, recovery).await.unwrap();
            let ask = || front.call(GetStatus::new(&key), By::Application);
            assert!(ask().await.is_ok());
            router.panic_registry();
            assert!(ask().await.is_ok());
            life.crash_system();
            assert!(ask().await.is_ok());
            let shutdown = life.shutdown(Duration::from_secs(5)).await;
            assert_eq!(shutdown, Shutdown { finished: 0, abandoned: 0 });
            assert_eq!(ask().await, Err(crate::Error::ShutDown));
            tokio::task::spawn_blocking(move || drop(life)).await.unwrap();
        });
    }
}
