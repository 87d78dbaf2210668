//! Progress on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::time::{Moment, pause};

pub(crate) struct LiveProgress {
    form: ProgressForm,
    length: Option<Duration>,
}

enum ProgressForm {
    Bar(ProgressBar),
    /// For logs.
    Lines,
    None,
}

/// What the progress shows at a moment.
pub(crate) struct ProgressText {
    pub(crate) line: String,
    /// Appended to the line in logs, where there is room.
    pub(crate) detail: String,
    /// Shown below the line.
    pub(crate) below: Option<String>,
}

const REDRAWN_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(5);

impl LiveProgress {
    /// Shows nothing if the output is JSON, and no bar among the lines of the log.
    pub(crate) fn new(json: bool, verbose: bool, seconds: Option<u32>) -> Self {
        let form = match (json, io::stderr().is_terminal()) {
            (true, _) => ProgressForm::None,
            (false, true) if !verbose => ProgressForm::Bar(bar(seconds)),
            (false, _) => ProgressForm::Lines,
        };
        Self { form, length: seconds.map(|seconds| Duration::from_secs(u64::from(seconds))) }
    }

    /// Prints a line, unless the output is JSON.
    pub(crate) fn say(&self, line: &str) {
        match &self.form {
            ProgressForm::Bar(bar) => bar.println(line),
            ProgressForm::Lines => drop(writeln!(io::stderr(), "{line}")),
            ProgressForm::None => {}
        }
    }

    /// Shows progress until the time is over or the user interrupts. Returns whether the user did.
    pub(crate) async fn until_over(
        &self,
        started: Moment,
        mut interrupted: watch::Receiver<bool>,
        text: impl Fn() -> ProgressText,
    ) -> bool {
        let every = if matches!(self.form, ProgressForm::Bar(_)) { REDRAWN_EVERY } else { LINE_EVERY };
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let show = async {
            loop {
                ticks.tick().await;
                self.draw(started.elapsed(), &text);
            }
        };
        let over = async {
            match self.length {
                Some(length) => pause(length).await,
                None => std::future::pending().await,
            }
        };
        let early = tokio::select! {
            () = show => false,
            () = over => false,
            _ = interrupted.wait_for(|interrupted| *interrupted) => true,
        };
        if let ProgressForm::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
        early
    }

    fn draw(&self, elapsed: Duration, text: impl Fn() -> ProgressText) {
        match &self.form {
            ProgressForm::Bar(bar) => {
                let text = text();
                bar.set_position(elapsed.as_secs());
                bar.set_message(text.line);
                bar.set_prefix(text.below.map_or_else(String::new, |below| format!("\n{below}")));
            }
            ProgressForm::Lines if elapsed >= Duration::from_secs(1) => {
                let text = text();
                let length = self.length.map(|length| format!("/{}", length.as_secs())).unwrap_or_default();
                let line = format!("{}{length} s  {}  {}", elapsed.as_secs(), text.line, text.detail);
                self.say(line.trim_end());
                if let Some(below) = text.below {
                    self.say(&below);
                }
            }
            ProgressForm::Lines | ProgressForm::None => {}
        }
    }
}

fn bar(seconds: Option<u32>) -> ProgressBar {
    let (bar, template) = match seconds {
        Some(seconds) => (ProgressBar::new(u64::from(seconds)), "[{bar:14}] {pos}/{len} s  {msg}{prefix}"),
        None => (ProgressBar::no_length(), "{spinner} {pos} s  {msg}  (Ctrl-C stops it){prefix}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("##-"))
}
