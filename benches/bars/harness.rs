//! Measures two things in turns and prints the result beside its bar.

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

pub(crate) fn heading() {
    let columns = format!("{:>11} {:>11} {:>6}  {:12} ", "measured", "yardstick", "ratio", "bar");
    println!("{:WHAT$} {columns}", "what, beside its yardstick");
}

/// The width of the first column.
const WHAT: usize = 48;

/// Prints a time beside its yardstick. `bar` is the limit of their ratio, or a remark.
pub(crate) fn row(what: &str, (measured, yardstick): (Duration, Duration), bar: &str) {
    let ratio = measured.as_secs_f64() / yardstick.as_secs_f64().max(1e-12);
    let verdict = verdict(ratio, bar);
    line(what, &short(measured), &short(yardstick), &format!("{ratio:.2}"), bar, verdict);
}

/// Prints a time beside its yardstick, with a limit of the time that follows from the yardstick.
pub(crate) fn row_within(what: &str, (measured, yardstick): (Duration, Duration), limit: Duration, bar: &str) {
    let ratio = measured.as_secs_f64() / yardstick.as_secs_f64().max(1e-12);
    let verdict = told(measured <= limit);
    line(what, &short(measured), &short(yardstick), &format!("{ratio:.2}"), bar, verdict);
}

/// Prints a figure without a yardstick, and without a verdict.
pub(crate) fn figure(what: &str, measured: &str, bar: &str) {
    line(what, measured, "-", "-", bar, "");
}

/// Prints a time without a yardstick, and its limit.
pub(crate) fn within(what: &str, measured: Duration, limit: Duration) {
    line(what, &short(measured), "-", "-", &format!("<= {}", short(limit)), told(measured <= limit));
}

/// Prints a number without a yardstick, and its limit in the same unit.
pub(crate) fn at_most(what: &str, measured: f64, limit: f64, unit: &str) {
    let places = if measured.fract() == 0.0 || measured >= 100.0 { 0 } else { 3 };
    let measured_text = format!("{measured:.places$} {unit}");
    line(what, measured_text.trim_end(), "-", "-", format!("<= {limit} {unit}").trim_end(), told(measured <= limit));
}

fn line(what: &str, measured: &str, yardstick: &str, ratio: &str, bar: &str, verdict: &str) {
    let text = format!("{what:WHAT$} {measured:>11} {yardstick:>11} {ratio:>6}  {bar:12} {verdict}");
    println!("{}", text.trim_end());
}

/// Returns whether the value is within a bar such as `<= 1.25` or `>= 0.8`. Other bars are remarks.
fn verdict(value: f64, bar: &str) -> &'static str {
    let limit = |sign: &str| bar.strip_prefix(sign)?.trim().parse::<f64>().ok();
    match (limit("<="), limit(">=")) {
        (Some(limit), _) => told(value <= limit),
        (_, Some(limit)) => told(value >= limit),
        (None, None) => "",
    }
}

fn told(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

pub(crate) fn short(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        ..1e4 => format!("{nanos:.0} ns"),
        ..1e7 => format!("{:.1} us", nanos / 1e3),
        ..1e10 => format!("{:.1} ms", nanos / 1e6),
        _ => format!("{:.1} s", nanos / 1e9),
    }
}

/// Measures both in turns and returns the medians.
pub(crate) fn turns(
    rounds: usize,
    ours: impl Fn() -> Duration,
    yardstick: impl Fn() -> Duration,
) -> (Duration, Duration) {
    let (ours, yardstick): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (ours(), yardstick())).unzip();
    (median(ours), median(yardstick))
}

pub(crate) fn median(figures: Vec<Duration>) -> Duration {
    quantile(figures, 0.5)
}

/// Returns the smallest figure that at least this part of all figures does not exceed.
pub(crate) fn quantile(mut figures: Vec<Duration>, part: f64) -> Duration {
    figures.sort_unstable();
    let at = (figures.len() as f64 * part) as usize;
    figures[at.min(figures.len() - 1)]
}

/// Returns the CPU time of the thread for one of many reads, so that other processes do not count.
pub(crate) fn each<T>(order: &[usize], mut read: impl FnMut(usize) -> T) -> Duration {
    let started = cpu_time(ClockId::ThreadCPUTime);
    for &at in order {
        black_box(read(at));
    }
    (cpu_time(ClockId::ThreadCPUTime) - started) / order.len() as u32
}

/// Returns the CPU time of this process.
pub(crate) fn process_time() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

/// Returns the CPU time of this process without the simulated providers, whose threads must be running still.
pub(crate) fn time_without_provider() -> Duration {
    let of_thread = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, numbers) = stat.rsplit_once(')')?;
        let mut times = numbers.split_whitespace().skip(11).map(|ticks| ticks.parse::<u64>().unwrap_or_default());
        let ticks = times.next()? + times.next()?;
        name.contains("(simulated").then(|| Duration::from_millis(ticks * TICK_MILLIS))
    };
    let tasks = fs::read_dir("/proc/self/task").expect("procfs of Linux");
    let provider: Duration = tasks.filter_map(|task| of_thread(task.ok()?)).sum();
    process_time().saturating_sub(provider)
}

/// The unit of CPU times in procfs.
const TICK_MILLIS: u64 = 10;

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Returns the resident memory of the process in bytes.
pub(crate) fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").expect("procfs of Linux");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4_096
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "due times are by the wall clock")]
pub(crate) fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "a bench waits by the system clock")]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Returns the same random order in every run.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    let mut seed: u64 = 1;
    for at in (1..count).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (seed >> 33) as usize % (at + 1));
    }
    order
}
