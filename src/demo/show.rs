//! The demo's output: progress on stderr, the summary on stdout.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    DemoArgs,
    meter::DemoMeter,
    naive::Naive,
    time::{Moment, pause},
    verdict::{Compared, Summary, duplicate_spends, faults},
    words::{folded, grouped, listed, per_second},
    world::World,
};
use crate::{CliFailure, cli::coloured};

pub(super) struct Show {
    json: bool,
    length: Option<Duration>,
    progress: LiveProgress,
    head: String,
    seed: u64,
}

enum LiveProgress {
    Bar(ProgressBar),
    /// A line every few seconds, for logs.
    Lines,
    None,
}

const REDRAWN_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Show {
    /// Prints the first line: the providers and the lifetime of tokens.
    pub(super) fn new(args: &DemoArgs, json: bool, verbose: bool, world: &World, seed: u64) -> Self {
        let progress = match (json, io::stderr().is_terminal()) {
            (true, _) => LiveProgress::None,
            (false, true) if !verbose => LiveProgress::Bar(bar(args.seconds)),
            (false, _) => LiveProgress::Lines,
        };
        let names: Vec<_> = world.idps.iter().map(|(name, _)| *name).collect();
        let head = format!("{} · tokens live {} s · refresh tokens single use", names.join(" "), world.life.as_secs());
        let length = args.seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let show = Self { json, length, progress, head, seed };
        show.say(&show.head);
        show
    }

    /// Prints a line of progress, unless the output is JSON.
    pub(super) fn say(&self, line: &str) {
        match &self.progress {
            LiveProgress::Bar(bar) => bar.println(line),
            LiveProgress::Lines => drop(writeln!(io::stderr(), "{line}")),
            LiveProgress::None => {}
        }
    }

    /// Shows progress until the time is over or the user interrupts.
    pub(super) async fn until_over(
        &self,
        world: &World,
        meter: &DemoMeter,
        naive: Option<&Naive>,
        started: Moment,
        mut interrupted: watch::Receiver<bool>,
    ) {
        let every = if matches!(self.progress, LiveProgress::Bar(_)) { REDRAWN_EVERY } else { LINE_EVERY };
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let show = async {
            loop {
                ticks.tick().await;
                self.draw(world, meter, naive, started.elapsed());
            }
        };
        let over = async {
            match self.length {
                Some(length) => pause(length).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = show => {}
            () = over => {}
            _ = interrupted.wait_for(|interrupted| *interrupted) => {}
        }
        if let LiveProgress::Bar(bar) = &self.progress {
            bar.finish_and_clear();
        }
    }

    fn draw(&self, world: &World, meter: &DemoMeter, naive: Option<&Naive>, elapsed: Duration) {
        let line = || {
            let (pairs, requests) = (world.pairs.len() as u64, world.idps.iter().map(|(_, sim)| sim.requests()).sum());
            let reads = per_second(meter.reads() as f64, elapsed);
            format!("{} pairs  {} requests  reads {reads}", grouped(pairs), grouped(requests))
        };
        match &self.progress {
            LiveProgress::Bar(bar) => {
                bar.set_position(elapsed.as_secs());
                bar.set_message(line());
                bar.set_prefix(naive.map_or_else(String::new, |naive| format!("\n{}", compared(world, meter, naive))));
            }
            LiveProgress::Lines if elapsed >= Duration::from_secs(1) => {
                let length = self.length.map(|length| format!("/{}", length.as_secs())).unwrap_or_default();
                self.say(&format!(
                    "{}{length} s  {}  {}",
                    elapsed.as_secs(),
                    line(),
                    listed(&faults(world)).join("  ")
                ));
                if let Some(naive) = naive {
                    self.say(&compared(world, meter, naive));
                }
            }
            LiveProgress::Lines | LiveProgress::None => {}
        }
    }

    /// Prints the summary. A closed pipe is no failure.
    ///
    /// # Errors
    /// The summary cannot be written.
    pub(super) fn summary(&self, summary: &Summary) -> Result<(), CliFailure> {
        let text = if self.json {
            format!("{}\n", serde_json::to_string(summary).expect("plain structs have a JSON form"))
        } else {
            self.in_words(summary)
        };
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
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

fn bar(seconds: Option<u32>) -> ProgressBar {
    let (bar, template) = match seconds {
        Some(seconds) => (ProgressBar::new(u64::from(seconds)), "[{bar:14}] {pos}/{len} s  {msg}{prefix}"),
        None => (ProgressBar::no_length(), "{spinner} {pos} s  {msg}  (Ctrl-C stops it){prefix}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("##-"))
}

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
