//! Line charts as SVG, without scripts, fonts or images from elsewhere. Colours follow the reader's light or dark scheme.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

/// A line over an axis of numbers.
pub(super) struct LineChart {
    pub(super) title: &'static str,
    /// Formats a value of the vertical axis.
    pub(super) unit: fn(f64) -> String,
    pub(super) scale: Scale,
    pub(super) points: Vec<(f64, f64)>,
    /// The marks of the horizontal axis.
    pub(super) marks: Vec<(f64, String)>,
}

/// The vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero to above the largest value.
    Linear,
    /// From a power of ten to another one.
    Logarithmic,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 32.0;

/// With more points than this, the line has no dots.
const DOTS: usize = 40;

/// The style of all charts, for a page that has them inline.
pub(super) const STYLE: &str = ".chart text{font:12px system-ui,sans-serif;fill:#57606a}.chart .title{font-weight:600;\
    font-size:14px;fill:#1f2328}.chart .back{fill:#ffffff}.chart .grid{stroke:#d8dee4;stroke-width:1}\
    .chart .line{fill:none;stroke:#0969da;stroke-width:2;stroke-linejoin:round}.chart .area{fill:#0969da;\
    fill-opacity:.12}.chart .dot{fill:#0969da}@media(prefers-color-scheme:dark){.chart text{fill:#9198a1}\
    .chart .title{fill:#f0f6fc}.chart .back{fill:#0d1117}.chart .grid{stroke:#30363d}.chart .line{stroke:#4493f8}\
    .chart .area,.chart .dot{fill:#4493f8}}";

impl LineChart {
    /// Returns an element for a page that has [`STYLE`].
    pub(super) fn inline(&self) -> Markup {
        html! {
            svg class="chart" viewBox=(view_box()) role="img" aria-label=(self.title) { (self.content()) }
        }
    }

    /// Returns a file of its own.
    pub(super) fn file(&self) -> String {
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox=(view_box()) width=(WIDTH) height=(HEIGHT) {
                title { (self.title) }
                style { (PreEscaped(STYLE)) }
                (self.content())
            }
        };
        svg.into_string() + "\n"
    }

    fn content(&self) -> Markup {
        let values = self.points.iter().map(|(_, y)| *y).filter(|y| y.is_finite());
        let (bottom, top, ticks) = match self.scale {
            Scale::Linear => linear(values.fold(0.0, f64::max)),
            Scale::Logarithmic => logarithmic(values.filter(|y| *y > 0.0)),
        };
        let last = self.points.last().map_or(0.0, |(x, _)| *x).max(self.marks.last().map_or(0.0, |(x, _)| *x));
        let right = if last > 0.0 { last } else { 1.0 };
        let x = |value: f64| tenths(LEFT + value / right * (WIDTH - LEFT - RIGHT));
        let y = |value: f64| tenths(self.height_of(value, bottom, top));
        let (base, placed) = (y(bottom), self.points.iter().map(|(at, value)| (x(*at), y(*value))).collect::<Vec<_>>());
        let line = path(&placed);
        let area = match (placed.first(), placed.last()) {
            (Some((from, _)), Some((to, _))) => format!("{line}L{to} {base}L{from} {base}Z"),
            _ => String::new(),
        };
        html! {
            rect class="back" width=(WIDTH) height=(HEIGHT) {}
            text class="title" x=(LEFT) y="22" { (self.title) }
            @for tick in &ticks {
                path class="grid" d={ "M" (LEFT) " " (y(*tick)) "H" (WIDTH - RIGHT) } {}
                text x=(LEFT - 8.0) y=(y(*tick) + 4.0) text-anchor="end" { ((self.unit)(*tick)) }
            }
            @for (at, name) in &self.marks {
                text x=(x(*at)) y=(HEIGHT - 10.0) text-anchor="middle" { (name) }
            }
            @if placed.is_empty() {
                text x=(WIDTH / 2.0) y=(HEIGHT / 2.0) text-anchor="middle" { "no data" }
            } @else {
                path class="area" d=(area) {}
                path class="line" d=(line) {}
            }
            @if placed.len() <= DOTS {
                @for (x, y) in &placed { circle class="dot" cx=(x) cy=(y) r="3" {} }
            }
        }
    }

    /// Returns the vertical position of a value.
    fn height_of(&self, value: f64, bottom: f64, top: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - bottom) / (top - bottom),
            Scale::Logarithmic => (value.max(bottom) / bottom).log10() / (top / bottom).log10(),
        };
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

fn view_box() -> String {
    format!("0 0 {WIDTH} {HEIGHT}")
}

fn path(placed: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in placed.iter().enumerate() {
        write!(path, "{}{x} {y}", if at == 0 { 'M' } else { 'L' }).expect("a string can be written");
    }
    path
}

/// Returns the ends of an axis from zero, and about four values on it that are easy to read.
fn linear(largest: f64) -> (f64, f64, Vec<f64>) {
    let rough = if largest > 0.0 { largest / 4.0 } else { 0.25 };
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let steps = (largest / step).ceil().max(1.0) as u32;
    (0.0, step * f64::from(steps), (0..=steps).map(|at| step * f64::from(at)).collect())
}

/// Returns the powers of ten around the values.
fn logarithmic(values: impl Iterator<Item = f64> + Clone) -> (f64, f64, Vec<f64>) {
    let smallest = values.clone().fold(f64::INFINITY, f64::min);
    let smallest = if smallest.is_finite() { smallest } else { 1.0 };
    let largest = values.fold(smallest, f64::max);
    let (from, to) = (smallest.log10().floor() as i32, largest.log10().ceil() as i32);
    let to = to.max(from + 1);
    (10_f64.powi(from), 10_f64.powi(to), (from..=to).map(|power| 10_f64.powi(power)).collect())
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Returns about six marks of seconds from zero.
pub(super) fn seconds(until: f64) -> Vec<(f64, String)> {
    let (_, _, ticks) = linear(until);
    ticks.into_iter().filter(|tick| *tick <= until * 1.001).map(|tick| (tick, format!("{tick} s"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, points: Vec<(f64, f64)>) -> LineChart {
        LineChart { title: "reads", unit: |value| format!("{value}"), scale, points, marks: seconds(4.0) }
    }

    #[test]
    fn axes_have_round_values_that_enclose_the_data() {
        assert_eq!(linear(0.0), (0.0, 0.25, vec![0.0, 0.25]));
        assert_eq!(linear(9.0).2, [0.0, 2.5, 5.0, 7.5, 10.0]);
        assert_eq!(linear(1_284.0).2, [0.0, 500.0, 1_000.0, 1_500.0]);
        assert_eq!(logarithmic([0.3, 45.0].into_iter()), (0.1, 100.0, vec![0.1, 1.0, 10.0, 100.0]));
        assert_eq!(logarithmic([10.0].into_iter()).1, 100.0);
        assert_eq!(logarithmic(std::iter::empty()).2, [1.0, 10.0]);
    }

    #[test]
    fn the_line_lies_between_the_axes() {
        let svg = chart(Scale::Linear, vec![(0.0, 0.0), (4.0, 10.0)]).file();
        assert!(svg.contains(r#"d="M76 228L696 40""#), "{svg}");
        let svg = chart(Scale::Logarithmic, vec![(0.0, 1.0), (2.0, 10.0), (4.0, 100.0)]).file();
        assert!(svg.contains(r#"d="M76 228L386 134L696 40""#), "{svg}");
        assert!(chart(Scale::Linear, vec![]).file().contains("no data"));
    }
}
