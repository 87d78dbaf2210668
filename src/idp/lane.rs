//! A thread for the connections of one provider.
//!
//! A provider may send without end: informational responses, header lines, frames. The HTTP stack reads them as fast as they come,
//! and bounds their memory, not their time. On a thread of their own they take the processor from no other provider, and the patience,
//! which is counted elsewhere, ends the request.

use std::sync::Arc;

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// The thread. Clones share it; with the last one it ends, and requests on it are dropped.
#[derive(Clone, Debug)]
pub(super) struct Lane(Arc<LaneRuntime>);

#[derive(Debug)]
struct LaneRuntime(Option<Runtime>);

impl Lane {
    /// # Errors
    /// The operating system gave no thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        // After each step: one step of a connection that is flooded may take long, and others wait for their turn, above all
        // the end of a request that was given up.
        runtime.global_queue_interval(1).event_interval(1);
        let runtime = runtime.worker_threads(1).thread_name("token-supervisor-idp").enable_all().build()?;
        Ok(Self(Arc::new(LaneRuntime(Some(runtime)))))
    }

    /// Runs the future there, and what it spawns. Aborting the task drops the future as soon as the thread comes to it.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        self.0.0.as_ref().map(|runtime| runtime.spawn(future))
    }
}

impl Drop for LaneRuntime {
    /// Does not wait for the thread: this may be a thread that must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
