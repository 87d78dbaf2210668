//! The tasks in which operations run to their end, also after their callers are gone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool::managed::{Object, PoolError, TimeoutType};
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{
    connection::{ConnectionPool, Pooled},
    failure::OperationError,
};
use crate::{
    error::Error,
    store::{StoreError, StoreFuture},
};

/// Starts operations until it is closed. Clones share the state.
#[derive(Clone)]
pub(super) struct Tasks {
    runtime: Handle,
    is_closed: Arc<Mutex<bool>>,
    running: watch::Sender<usize>,
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, is_closed: Arc::default(), running: watch::Sender::new(0) }
    }

    /// Starts an operation on a connection of the pool, after `turn`, whose value is dropped at the end. The server ends each of
    /// its statements after `timeout`.
    pub(super) fn run<T, F, W>(&self, pool: &ConnectionPool, timeout: Duration, turn: W, work: F) -> StoreFuture<T>
    where
        W: Future<Output: Send> + Send + 'static,
        F: for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<T, OperationError>> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let is_closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_closed {
            let running = RunningTask::new(&self.running);
            let pool = pool.clone();
            self.runtime.spawn(async move {
                let turn = turn.await;
                let result = operation(&pool, timeout, work).await;
                // The next one begins before its caller can hear of this one.
                drop(turn);
                reply.send(result).ok();
                drop(running);
            });
        }
        drop(is_closed);
        Box::pin(async {
            // The task is gone where the runtime has stopped: whether anything was stored is not known.
            result.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is closed".to_owned())))
        })
    }

    /// Refuses operations from now on. Resolves once those that run have ended.
    pub(super) fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        *self.is_closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let mut running = self.running.subscribe();
        async move { drop(running.wait_for(|running| *running == 0).await) }
    }
}

/// Counts a task for as long as it lives, also if it panics.
struct RunningTask(watch::Sender<usize>);

impl RunningTask {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The statements of an operation, each at its limit.
const STATEMENTS: u32 = 3;

async fn operation<T, F>(pool: &ConnectionPool, timeout: Duration, work: F) -> Result<T, StoreError>
where
    F: for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<T, OperationError>>,
{
    let mut connection = pool.get().await.map_err(unconnected)?;
    // The server ends statements that take too long. This limit is for a server or a network that says nothing: the
    // connection is closed then, and what was sent is as unknown as after any lost acknowledgement.
    let result = tokio::time::timeout(timeout * STATEMENTS, work(&mut connection.session)).await;
    let result = match result {
        Ok(result) => result.map_err(StoreError::from),
        Err(_) => Err(StoreError::Unavailable(format!("the server did not respond within {:?}", timeout * STATEMENTS))),
    };
    if matches!(result, Err(StoreError::Unavailable(_) | StoreError::Full)) {
        discard(connection);
    }
    result
}

/// Closes a connection whose state is not known.
fn discard(connection: Pooled) {
    drop(Object::take(connection));
}

fn unconnected(error: PoolError<StoreError>) -> StoreError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(TimeoutType::Wait) => {
            StoreError::Unavailable("no connection to the database became free in time".to_owned())
        }
        PoolError::Closed => StoreError::Unavailable("the store is closed".to_owned()),
        error => StoreError::Unavailable(format!("cannot connect to the database: {error}")),
    }
}

/// Runs blocking work on a thread of its own, wherever the caller runs.
pub(super) fn blocking<T: Send>(runtime: &Handle, work: impl FnOnce(&Handle) -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("store-open".to_owned()).spawn_scoped(scope, || work(runtime));
        let thread = thread.map_err(|error| Error::Start(format!("the operating system gave no thread: {error}")))?;
        thread.join().map_err(|_| Error::Internal("opening the store panicked"))
    })
}

/// Runs blocking work with a runtime of its own.
#[cfg(feature = "config")]
pub(super) fn alone<T: Send>(work: impl FnOnce(&Handle) -> Result<T, Error> + Send) -> Result<T, Error> {
    let start = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime =
                start().map_err(|error| Error::Start(format!("the operating system gave no threads: {error}")))?;
            work(runtime.handle())
        });
        thread.join().map_err(|_| Error::Internal("opening the store panicked"))?
    })
}
