//! `/metrics`, in the text format of Prometheus: the metrics of the supervisor and of the API. Labels are names from the
//! configuration and fixed words, never users.

use std::fmt::Write as _;

use super::{call::Call, problem::Problem, response::ApiResponse};
use crate::{Metric, MetricKind, Sample, apikey::ApiKey};

/// `GET /metrics`.
pub(super) async fn metrics(call: &Call) -> Result<ApiResponse, Problem> {
    if call.principal().key().is_some_and(ApiKey::is_limited) {
        let detail = "metrics cover all identity providers and users, and the API key is limited to some of them";
        return Err(Problem::forbidden(detail));
    }
    let mut build = Metric::new("build_info", MetricKind::Gauge, "Which version runs.");
    build.push(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut metrics = vec![build];
    metrics.extend(call.api.counters.metrics());
    metrics.extend(call.api.supervisor.metrics().await);
    if let Some(shed) = metrics.iter_mut().find(|metric| metric.name == "shed_total") {
        call.api.shed.push_to(shed);
    }
    Ok(ApiResponse::text(CONTENT_TYPE, metrics.iter().map(text).collect::<String>()))
}

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric as text. Writing to a string does not fail.
fn text(metric: &Metric) -> String {
    let Metric { name, help, kind, .. } = metric;
    let name = format!("token_supervisor_{name}");
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str());
    for Sample { suffix, labels, value, .. } in &metric.samples {
        write!(text, "{name}{suffix}").ok();
        for (index, (label, value)) in labels.iter().enumerate() {
            write!(text, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(value)).ok();
        }
        writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" }).ok();
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_in_the_format_of_prometheus() {
        let mut metric = Metric::new("x_total", MetricKind::Counter, "How many x.");
        metric.push(&[("idp", "a\"b\\c\nd"), ("op", "read")], 2.0);
        metric.push(&[], 0.5);
        let expected = "# HELP token_supervisor_x_total How many x.\n# TYPE token_supervisor_x_total counter\n\
            token_supervisor_x_total{idp=\"a\\\"b\\\\c\\nd\",op=\"read\"} 2\ntoken_supervisor_x_total 0.5\n";
        assert_eq!(text(&metric), expected);
    }
}
