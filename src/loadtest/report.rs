//! The report: a page that needs nothing but itself.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    chart::{LineChart, STYLE, Scale, seconds},
    outcome::{LoadResult, bytes, micros},
    series::LoadSample,
};
use crate::demo::words::grouped;

const PAGE_STYLE: &str = "body{margin:0;font:15px/1.5 system-ui,sans-serif;color:#1f2328;background:#ffffff}\
    main{max-width:760px;margin:0 auto;padding:24px 20px 48px}h1{font-size:24px;margin:0 0 4px}\
    h2{font-size:17px;margin:32px 0 8px}p{margin:4px 0}.note{color:#57606a}.bad{color:#cf222e;font-weight:600}\
    .tiles{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}.tiles div{border:1px solid #d8dee4;border-radius:6px;\
    padding:8px 14px;min-width:96px}.tiles b{display:block;font-size:20px;font-weight:600}\
    .tiles span{color:#57606a;font-size:13px}table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid #d8dee4;font-weight:400;vertical-align:top}\
    th{color:#57606a;width:36%}svg{width:100%;height:auto;border:1px solid #d8dee4;border-radius:6px;margin:8px 0}\
    @media(prefers-color-scheme:dark){body{color:#f0f6fc;background:#0d1117}.note,th,.tiles span{color:#9198a1}\
    .bad{color:#f85149}.tiles div,th,td,svg{border-color:#30363d}}";

/// Returns the report as one HTML file.
pub(super) fn html(result: &LoadResult) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "token-supervisor load test" }
                style { (PreEscaped(PAGE_STYLE)) (PreEscaped(STYLE)) }
            }
            body { main { (content(result)) } }
        }
    };
    page.into_string()
}

fn content(result: &LoadResult) -> Markup {
    let parameters = &result.parameters;
    html! {
        h1 { "token-supervisor load test" }
        p class="note" { (parameters.target) ", " (parameters.started_at) }
        @if result.interrupted {
            p { "Ended early, after " (result.seconds) " of " (parameters.seconds) " seconds." }
        }
        @if let Some(losses) = &result.losses {
            p class=[result.lost().then_some("bad")] { "Losses: " (losses.in_words()) }
        }
        div class="tiles" {
            (tile("reads per second", &rate(result.reads_per_second)))
            @for (name, time) in result.latency.named() { (tile(&format!("latency {name}"), &micros(time))) }
            (tile("refreshes per second", &rate(result.refreshes_per_second)))
            @if let Some((most, _)) = result.memory() { (tile("resident memory", &bytes(most))) }
            (tile("errors", &grouped(result.errors.values().sum())))
        }
        @for (_, chart) in charts(result) { (chart.inline()) }
        h2 { "Errors" }
        (counts(result.errors.iter().map(|(name, times)| (name.as_str(), *times)), "Every read returned a token."))
        @if !result.faults.is_empty() {
            h2 { "Injected faults" }
            (counts(result.faults.iter().map(|(name, times)| (*name, *times)), ""))
        }
        h2 { "Parameters" }
        table {
            (row("duration", &format!("{} s", result.seconds)))
            (row("grants", &grouped(parameters.pairs)))
            (row("readers", &grouped(parameters.readers)))
            @if let Some(lifetime) = parameters.lifetime_seconds {
                (row("lifetime of access tokens", &format!("{lifetime} s")))
            }
            @if let Some(seed) = parameters.seed { (row("seed", &seed.to_string())) }
            (row("reads", &grouped(result.reads)))
            (row("reads that were timed", &grouped(result.latency.timed)))
            (row("machine", &result.machine.in_words()))
            (row("version", result.version))
        }
        h2 { "What the figures mean" }
        p class="note" {
            "Latency is the time from a caller's request to its token, with the wait for a refresh if there is one. "
            @if result.losses.is_some() {
                "Refreshes are requests that the simulated providers received. Memory is that of the process, with the \
                 providers and their log of every refresh token."
            } @else {
                "Refreshes are new tokens that readers saw."
            }
        }
    }
}

/// Returns the charts, each with the name of its file.
pub(super) fn plots(result: &LoadResult) -> Vec<(&'static str, String)> {
    charts(result).into_iter().map(|(name, chart)| (name, chart.file())).collect()
}

fn charts(result: &LoadResult) -> Vec<(&'static str, LineChart)> {
    let over_time = |title, unit, value: fn(&LoadSample) -> Option<f64>| {
        let points = result.samples.iter().filter_map(|sample| Some((sample.at, value(sample)?))).collect();
        LineChart { title, unit, scale: Scale::Linear, points, marks: seconds(result.seconds) }
    };
    // Each further nine of the percentile takes the same width.
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let quantiles = &result.latency.quantiles;
    let largest = quantiles.last().map_or(1.0, |(quantile, _)| nines(*quantile));
    let marks = [(0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")]
        .into_iter()
        .chain([(0.999_99, "99.999 %"), (0.999_999, "99.9999 %")])
        .map(|(quantile, name)| (nines(quantile), name.to_owned()))
        .filter(|(at, _)| *at <= largest + 0.05)
        .collect();
    let latency = LineChart {
        title: "Latency by percentile of reads",
        unit: micros,
        scale: Scale::Logarithmic,
        points: quantiles.iter().map(|(quantile, time)| (nines(*quantile), *time)).collect(),
        marks,
    };
    let mut charts = vec![
        ("latency", latency),
        ("reads", over_time("Reads per second", rate, |sample| Some(sample.reads_per_second))),
        ("refreshes", over_time("Refreshes per second", rate, |sample| Some(sample.refreshes_per_second))),
    ];
    if !result.errors.is_empty() {
        charts.push(("errors", over_time("Errors per second", rate, |sample| Some(sample.errors_per_second))));
    }
    if result.memory().is_some() {
        let memory = over_time(
            "Resident memory",
            |value| bytes(value as u64),
            |sample| sample.resident_bytes.map(|bytes| bytes as f64),
        );
        charts.push(("memory", memory));
    }
    charts
}

fn rate(per_second: f64) -> String {
    match per_second {
        1_000_000.0.. => format!("{:.1} M", per_second / 1e6),
        10_000.0.. => format!("{:.0} k", per_second / 1e3),
        _ => grouped_tenths(per_second),
    }
}

/// Formats a number below ten with a place after the point, if it has one.
fn grouped_tenths(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 { format!("{number:.1}") } else { grouped(number.round() as u64) }
}

fn tile(name: &str, value: &str) -> Markup {
    html! { div { b { (value) } span { (name) } } }
}

fn row(name: &str, value: &str) -> Markup {
    html! { tr { th { (name) } td { (value) } } }
}

fn counts<'a>(counts: impl Iterator<Item = (&'a str, u64)>, none: &str) -> Markup {
    let counts: Vec<_> = counts.collect();
    html! {
        @if counts.is_empty() {
            p class="note" { (none) }
        } @else {
            table { @for (name, times) in counts { (row(name, &grouped(times))) } }
        }
    }
}
