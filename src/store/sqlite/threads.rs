//! The store's threads: one writer, which commits many jobs in one transaction, and readers.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use diesel::{
    SqliteConnection,
    result::{DatabaseErrorKind, Error as DieselError},
};
use tokio::sync::{oneshot, watch};

use super::{
    files::{LockFile, OpenFiles},
    log::LastCommit,
    memory::WriterMemory,
};
use crate::store::{StoreError, StoreFuture, unreadable::RowReader};

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
            JobError::Database(error) => Self::from(&error),
            JobError::Store(error) => error,
        }
    }
}

impl From<&DieselError> for StoreError {
    fn from(error: &DieselError) -> Self {
        match error {
            // SQLITE_FULL has no kind of its own.
            DieselError::DatabaseError(_, what) if what.message().contains("disk is full") => Self::Full,
            // The message contains names of constraints and files, never a value.
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whether the database returned a record, and it is not what its columns hold.
pub(super) fn is_undecodable(error: &DieselError) -> bool {
    matches!(error, DieselError::DeserializationError(_))
}

/// A job on a connection, with the memory of its thread. It may run more than once, and reports its result after COMMIT.
trait Job<M>: Send {
    fn run(&mut self, connection: &mut SqliteConnection, memory: &mut M) -> Result<(), DieselError>;
    fn report(self: Box<Self>, failed: Option<&StoreError>);
}

struct TypedJob<F, T> {
    work: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T, M> Job<M> for TypedJob<F, T>
where
    F: FnMut(&mut SqliteConnection, &mut M) -> Result<T, JobError> + Send,
    T: Send,
{
    fn run(&mut self, connection: &mut SqliteConnection, memory: &mut M) -> Result<(), DieselError> {
        self.result = Some(match (self.work)(connection, memory) {
            Ok(value) => Ok(value),
            // An unreadable row fails only this job; a database error fails the transaction.
            Err(JobError::Store(error)) => Err(error),
            Err(JobError::Database(error)) => return Err(error),
        });
        Ok(())
    }

    fn report(self: Box<Self>, failed: Option<&StoreError>) {
        let result = match failed {
            Some(error) => Err(error.clone()),
            None => self.result.unwrap_or_else(|| Err(StoreError::Unavailable("the job did not run".to_owned()))),
        };
        // The caller may have dropped its future; the work is done all the same.
        self.reply.send(result).ok();
    }
}

fn task<F, T, M>(work: F) -> (Box<dyn Job<M>>, StoreFuture<T>)
where
    F: FnMut(&mut SqliteConnection, &mut M) -> Result<T, JobError> + Send + 'static,
    T: Send + 'static,
{
    let (reply, result) = oneshot::channel();
    let result =
        async { result.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is closed".to_owned()))) };
    (Box::new(TypedJob { work, result: None, reply }), Box::pin(result))
}

/// The job queue of a group of threads, each with a memory of type `M`.
pub(super) struct Jobs<M> {
    /// `None` once closed.
    queue: RwLock<Option<Sender<Box<dyn Job<M>>>>>,
    /// The number of running threads.
    running: watch::Receiver<usize>,
}

impl<M: 'static> Jobs<M> {
    pub(super) fn run<F, T>(&self, work: F) -> StoreFuture<T>
    where
        F: FnMut(&mut SqliteConnection, &mut M) -> Result<T, JobError> + Send + 'static,
        T: Send + 'static,
    {
        let (job, result) = task(work);
        // Without a thread the job is dropped, and its future reports that the store is closed.
        if let Some(queue) = &*self.queue.read().unwrap_or_else(PoisonError::into_inner) {
            queue.send(job).ok();
        }
        result
    }

    /// Closes the queue. Resolves once the last job is done and the threads have exited.
    pub(super) fn close(&self) -> impl Future<Output = ()> + Send + use<M> {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        let mut running = self.running.clone();
        async move { drop(running.wait_for(|running| *running == 0).await) }
    }
}

/// What the one thread that writes works with.
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) memory: WriterMemory,
    pub(super) files: OpenFiles,
    pub(super) last: LastCommit,
    pub(super) reader: RowReader,
    /// Nothing is written just now, and that was logged.
    pub(super) is_stuck: bool,
}

/// Starts the thread of the one connection that writes.
pub(super) fn writer(mut writer: Writer, lock: &Arc<LockFile>) -> Jobs<WriterMemory> {
    let (jobs, queue) = channel::<WriterJob>();
    let count = watch::Sender::new(0);
    spawn("store-writer", &count, lock, move || writer.run(&queue));
    Jobs { queue: RwLock::new(Some(jobs)), running: count.subscribe() }
}

type WriterJob = Box<dyn Job<WriterMemory>>;

impl Writer {
    fn run(&mut self, queue: &Receiver<WriterJob>) {
        loop {
            let first = match self.is_log_to_be_emptied() {
                true => queue.recv_timeout(AGAIN),
                false => queue.recv().map_err(RecvTimeoutError::from),
            };
            match first {
                Ok(first) => {
                    let batch = std::iter::once(first).chain(queue.try_iter()).take(BATCH).collect();
                    match self.files.check() {
                        Ok(()) => self.commit(batch),
                        Err(error) => self.refuse(batch, &StoreError::Unavailable(error.to_string())),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.is_log_to_be_emptied() && self.empty_log() {
                self.reader.purged.store(false, Ordering::Relaxed);
            }
        }
        // The connection that is closed last deletes the log: the database has everything before.
        self.empty_log();
    }

    /// Whether the log may have what was in a purged row.
    fn is_log_to_be_emptied(&self) -> bool {
        self.reader.purged.load(Ordering::Relaxed)
    }

    /// Moves everything from the log to the database, unless somebody reads it just now, and truncates the log.
    fn empty_log(&mut self) -> bool {
        if self.files.check().is_ok() {
            super::empty_log(&mut self.connection);
        }
        self.last.record() == Some(0)
    }

    fn refuse(&mut self, batch: Vec<WriterJob>, why: &StoreError) {
        if !std::mem::replace(&mut self.is_stuck, true) {
            tracing::error!(error = %why, "nothing is written to the store");
        }
        batch.into_iter().for_each(|job| job.report(Some(why)));
    }

    /// Runs the jobs in one transaction and reports their results after COMMIT. If the transaction fails, runs each job
    /// in a transaction of its own, so that one failing job does not fail the others.
    fn commit(&mut self, mut batch: Vec<WriterJob>) {
        match self.transaction(&mut batch) {
            Ok(()) => {
                self.last.record();
                if std::mem::take(&mut self.is_stuck) {
                    tracing::info!("the store is written again");
                }
                batch.into_iter().for_each(|job| job.report(None));
            }
            // A row that the database refuses concerns nobody else.
            Err(error @ DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) if batch.len() == 1 => {
                batch.into_iter().for_each(|job| job.report(Some(&StoreError::from(&error))));
            }
            Err(error) if batch.len() == 1 => self.refuse(batch, &StoreError::from(&error)),
            Err(_) => {
                for mut job in batch {
                    let alone = self.transaction(std::slice::from_mut(&mut job));
                    self.last.record();
                    job.report(alone.err().as_ref().map(StoreError::from).as_ref());
                }
            }
        }
    }
}

impl Writer {
    fn transaction(&mut self, jobs: &mut [WriterJob]) -> Result<(), DieselError> {
        let memory = &mut self.memory;
        let written = self.connection.immediate_transaction(|connection| {
            memory.check(connection)?;
            jobs.iter_mut().try_for_each(|job| job.run(connection, memory))
        });
        if written.is_err() {
            memory.forget();
        }
        written
    }
}

/// The time between two tries to empty the log.
const AGAIN: Duration = Duration::from_secs(1);

/// Large enough to share one flush among all callers at peak load, small enough to answer the first caller soon.
const BATCH: usize = 256;

/// Starts a thread for each connection that reads.
pub(super) fn readers(connections: Vec<SqliteConnection>, lock: &Arc<LockFile>) -> Jobs<()> {
    let (jobs, queue) = channel();
    let queue = Arc::new(Mutex::new(queue));
    let count = watch::Sender::new(0);
    for mut connection in connections {
        let queue = queue.clone();
        spawn("store-reader", &count, lock, move || {
            while let Some(mut job) = next(&queue) {
                let failed = job.run(&mut connection, &mut ()).err();
                job.report(failed.as_ref().map(StoreError::from).as_ref());
            }
        });
    }
    Jobs { queue: RwLock::new(Some(jobs)), running: count.subscribe() }
}

fn next(queue: &Mutex<Receiver<Box<dyn Job<()>>>>) -> Option<Box<dyn Job<()>>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Runs `body` on a thread that holds the lock and counts as running until `body` returns.
fn spawn(name: &str, count: &watch::Sender<usize>, lock: &Arc<LockFile>, body: impl FnOnce() + Send + 'static) {
    let (count, lock) = (count.clone(), lock.clone());
    count.send_modify(|count| *count += 1);
    let run = move || {
        body();
        drop(lock);
        count.send_modify(|count| *count -= 1);
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("the operating system can start a thread");
}
