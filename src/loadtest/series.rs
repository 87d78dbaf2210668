//! What is recorded while the load runs.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{sync::watch, task::JoinHandle};

use super::host::resident_bytes;
use crate::demo::{
    meter::DemoMeter,
    time::{Moment, pause},
};

/// The load within one interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct LoadSample {
    /// The end of the interval, in seconds since the load began.
    pub(super) at: f64,
    pub(super) reads_per_second: f64,
    pub(super) refreshes_per_second: f64,
    pub(super) errors_per_second: f64,
    /// The resident memory of this process, if it is what is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resident_bytes: Option<u64>,
}

/// Records samples in a task.
pub(super) struct Recorder {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<LoadSample>>,
}

/// At most about this number of samples is kept: with a longer load, intervals are longer than a second.
const SAMPLES: u32 = 600;

impl Recorder {
    /// Starts to record. `refreshes` returns their number so far.
    pub(super) fn start(
        meter: Arc<DemoMeter>,
        seconds: u32,
        memory: bool,
        refreshes: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let every = Duration::from_secs(u64::from(seconds.div_ceil(SAMPLES)));
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let counts = || [meter.reads(), refreshes(), meter.errors().values().sum()].map(|count| count as f64);
            let (started, mut then, mut before, mut samples) = (Moment::now(), 0.0, counts(), Vec::new());
            loop {
                let over = tokio::select! {
                    () = pause(every) => false,
                    _ = stopped.wait_for(|stopped| *stopped) => true,
                };
                let (now, counted) = (started.elapsed().as_secs_f64(), counts());
                // The last interval is shorter: below a tenth of a second it says nothing.
                if now - then > 0.1 {
                    let rate = |index: usize| (counted[index] - before[index]) / (now - then);
                    samples.push(LoadSample {
                        at: now,
                        reads_per_second: rate(0),
                        refreshes_per_second: rate(1),
                        errors_per_second: rate(2),
                        resident_bytes: resident_bytes().filter(|_| memory),
                    });
                }
                if over {
                    return samples;
                }
                (then, before) = (now, counted);
            }
        });
        Self { stop, task }
    }

    pub(super) async fn stop(self) -> Vec<LoadSample> {
        self.stop.send_replace(true);
        self.task.await.unwrap_or_default()
    }
}
