//! The threads: a writer that commits many jobs at once, and readers.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use diesel::{SqliteConnection, result::Error as DieselError};
use tokio::sync::{oneshot, watch};

use super::LockFile;
use crate::store::{StoreError, StoreFuture};

/// What a job on a connection can fail with.
#[derive(Debug)]
pub(super) enum JobError {
    Database(DieselError),
    Store(StoreError),
}

impl From<DieselError> for JobError {
    fn from(error: DieselError) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<JobError> for StoreError {
    fn from(failure: JobError) -> Self {
        match failure {
            // The message names constraints and files, never a value.
            JobError::Database(error) => Self::Unavailable(error.to_string()),
            JobError::Store(error) => error,
        }
    }
}

/// Something to do on a connection, perhaps more than once, and to answer once it is committed.
trait Job: Send {
    fn run(&mut self, connection: &mut SqliteConnection) -> Result<(), DieselError>;
    fn answer(self: Box<Self>, failed: Option<&DieselError>);
}

struct TypedJob<F, T> {
    work: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for TypedJob<F, T>
where
    F: FnMut(&mut SqliteConnection) -> Result<T, JobError> + Send,
    T: Send,
{
    fn run(&mut self, connection: &mut SqliteConnection) -> Result<(), DieselError> {
        self.result = Some(match (self.work)(connection) {
            Ok(value) => Ok(value),
            // A row that cannot be read is this job's alone; a database error ends the transaction.
            Err(JobError::Store(error)) => Err(error),
            Err(JobError::Database(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<&DieselError>) {
        let unavailable = |text: String| Err(StoreError::Unavailable(text));
        let result = match failed {
            Some(error) => unavailable(error.to_string()),
            None => self.result.unwrap_or_else(|| unavailable("the job did not run".to_owned())),
        };
        // Whoever asked may be gone; the work is done all the same.
        self.reply.send(result).ok();
    }
}

fn task<F, T>(work: F) -> (Box<dyn Job>, StoreFuture<T>)
where
    F: FnMut(&mut SqliteConnection) -> Result<T, JobError> + Send + 'static,
    T: Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let answer =
        async { answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("its thread has ended".to_owned()))) };
    (Box::new(TypedJob { work, result: None, reply }), Box::pin(answer))
}

/// Where jobs for a group of threads go.
pub(super) struct Jobs {
    /// `None` once closed.
    queue: RwLock<Option<Sender<Box<dyn Job>>>>,
    /// Counts the threads that run.
    running: watch::Receiver<usize>,
}

impl Jobs {
    pub(super) fn run<F, T>(&self, work: F) -> StoreFuture<T>
    where
        F: FnMut(&mut SqliteConnection) -> Result<T, JobError> + Send + 'static,
        T: Send + 'static,
    {
        let (job, answer) = task(work);
        // Without a thread the job is dropped, and the answer says so.
        if let Some(queue) = &*self.queue.read().unwrap_or_else(PoisonError::into_inner) {
            queue.send(job).ok();
        }
        answer
    }

    /// Resolves once the last job is done and the threads have ended.
    pub(super) fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        let mut running = self.running.clone();
        async move { drop(running.wait_for(|running| *running == 0).await) }
    }
}

/// The one connection that writes.
pub(super) fn writer(mut connection: SqliteConnection, lock: &Arc<LockFile>) -> Jobs {
    let (jobs, queue) = channel::<Box<dyn Job>>();
    let count = watch::Sender::new(0);
    spawn("store-writer", &count, lock, move || {
        while let Ok(first) = queue.recv() {
            let batch = std::iter::once(first).chain(queue.try_iter()).take(BATCH).collect();
            commit(&mut connection, batch);
        }
    });
    Jobs { queue: RwLock::new(Some(jobs)), running: count.subscribe() }
}

/// Enough to share one flush among all callers of a busy moment, few enough to answer the first soon.
const BATCH: usize = 256;

/// Runs the jobs in one transaction and answers after COMMIT. If it fails, each runs on its own, so
/// that one job's trouble stays its own.
fn commit(connection: &mut SqliteConnection, mut batch: Vec<Box<dyn Job>>) {
    let together =
        connection.immediate_transaction(|connection| batch.iter_mut().try_for_each(|job| job.run(connection)));
    match together {
        Ok(()) => batch.into_iter().for_each(|job| job.answer(None)),
        Err(error) if batch.len() == 1 => batch.into_iter().for_each(|job| job.answer(Some(&error))),
        Err(_) => {
            for mut job in batch {
                let alone = connection.immediate_transaction(|connection| job.run(connection));
                job.answer(alone.err().as_ref());
            }
        }
    }
}

/// Connections that read.
pub(super) fn readers(connections: Vec<SqliteConnection>, lock: &Arc<LockFile>) -> Jobs {
    let (jobs, queue) = channel::<Box<dyn Job>>();
    let queue = Arc::new(Mutex::new(queue));
    let count = watch::Sender::new(0);
    for mut connection in connections {
        let queue = queue.clone();
        spawn("store-reader", &count, lock, move || {
            while let Some(mut job) = next(&queue) {
                let failed = job.run(&mut connection).err();
                job.answer(failed.as_ref());
            }
        });
    }
    Jobs { queue: RwLock::new(Some(jobs)), running: count.subscribe() }
}

fn next(queue: &Mutex<Receiver<Box<dyn Job>>>) -> Option<Box<dyn Job>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Runs `body` on a thread that holds the lock and is counted while it runs.
fn spawn(name: &str, count: &watch::Sender<usize>, lock: &Arc<LockFile>, body: impl FnOnce() + Send + 'static) {
    let (count, lock) = (count.clone(), lock.clone());
    count.send_modify(|count| *count += 1);
    let run = move || {
        body();
        drop(lock);
        count.send_modify(|count| *count -= 1);
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("the operating system gives a thread");
}
