//! The demo's output: progress on stderr, the summary on stdout.

use std::time::Duration;

use tokio::sync::watch;

use super::{
    DemoArgs,
    meter::DemoMeter,
    naive::Naive,
    progress::{LiveProgress, ProgressText},
    time::Moment,
    verdict::{Compared, Summary, duplicate_spends, faults},
    words::{folded, grouped, listed, per_second},
    world::World,
};
use crate::{
    CliFailure,
    cli::{Out, coloured},
};

pub(super) struct Show {
    json: bool,
    progress: LiveProgress,
    head: String,
    seed: u64,
}

impl Show {
    /// Prints the first line: the providers and the lifetime of tokens.
    pub(super) fn new(args: &DemoArgs, json: bool, verbose: bool, world: &World, seed: u64) -> Self {
        let progress = LiveProgress::new(json, verbose, args.seconds);
        let show = Self { json, progress, head: world.head(), seed };
        show.say(&show.head);
        show
    }

    /// Prints a line of progress, unless the output is JSON.
    pub(super) fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// Shows progress until the time is over or the user interrupts.
    pub(super) async fn until_over(
        &self,
        world: &World,
        meter: &DemoMeter,
        naive: Option<&Naive>,
        started: Moment,
        interrupted: watch::Receiver<bool>,
    ) {
        let text = || {
            let reads = per_second(meter.reads() as f64, started.elapsed());
            let (pairs, requests) = (grouped(world.pairs.len() as u64), grouped(world.requests()));
            ProgressText {
                line: format!("{pairs} pairs  {requests} requests  reads {reads}"),
                detail: listed(&faults(world)).join("  "),
                below: naive.map(|naive| compared(world, meter, naive)),
            }
        };
        self.progress.until_over(started, interrupted, text).await;
    }

    /// Prints the summary. A closed pipe is no failure.
    ///
    /// # Errors
    /// The summary cannot be written.
    pub(super) fn summary(&self, summary: &Summary) -> Result<(), CliFailure> {
        Out { json: self.json }.result(summary, || self.in_words(summary))
    }

    fn in_words(&self, summary: &Summary) -> String {
        let elapsed = Duration::from_secs_f64(summary.seconds);
        let mut lines = vec![
            self.head.clone(),
            format!(
                "{} s  {} pairs  {} refreshes  {:.0}/s  reads {} p99 {:.1} us  seed {}",
                summary.seconds,
                grouped(u64::from(summary.pairs)),
                grouped(summary.refreshes),
                summary.refreshes_per_second,
                per_second(summary.reads as f64, elapsed),
                summary.read_p99_us,
                self.seed,
            ),
            folded("faults  ", &listed(&summary.faults)),
            format!(
                "ours    duplicate spends {}  lost rotations {}  caller errors {}",
                summary.duplicate_spends, summary.lost_rotations, summary.caller_errors
            ),
        ];
        lines.extend(summary.findings.iter().take(SHOWN).map(|finding| format!("        {finding}")));
        if summary.findings.len() > SHOWN {
            lines.push(format!("        and {} more (--json lists all)", summary.findings.len() - SHOWN));
        }
        if let Some(Compared { duplicate_spends, logged_out, of, caller_errors, refreshes }) = summary.naive {
            let line = without_supervision(duplicate_spends, logged_out, of, caller_errors);
            lines.push(format!("{line}  refreshes {}", grouped(refreshes)));
        }
        lines.push(if summary.passed() {
            format!(
                "{}    next: run the demo longer or with more grants: token-supervisor demo --help",
                coloured("PASS", 32)
            )
        } else {
            let again = format!("token-supervisor demo -v --pairs {} --seed {}", summary.pairs, self.seed);
            format!("{}    next: run {again}, and report its output", coloured("FAIL", 31))
        });
        lines.join("\n") + "\n"
    }
}

/// Maximum number of findings in a summary in words.
const SHOWN: usize = 20;

/// Returns the figures of both clients so far, in two lines. Losses that no caller noticed are found at the end.
fn compared(world: &World, meter: &DemoMeter, naive: &Naive) -> String {
    let (ours, theirs) = (duplicate_spends(&world.idps), duplicate_spends(naive.idps()));
    let (out, of) = (naive.signed_out() as u64, naive.pairs().len() as u64);
    let [errors, their_errors] = [meter, naive.meter()].map(|meter| meter.errors().values().sum::<u64>());
    let naive = without_supervision(theirs, out, of, their_errors);
    format!("ours    duplicate spends {}  caller errors {}\n{naive}", grouped(ours), grouped(errors))
}

fn without_supervision(duplicate_spends: u64, logged_out: u64, of: u64, caller_errors: u64) -> String {
    let [duplicates, out, of, errors] = [duplicate_spends, logged_out, of, caller_errors].map(grouped);
    format!("naive   duplicate spends {duplicates}  logged out {out} of {of}  caller errors {errors}")
}
