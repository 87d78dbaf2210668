//! Formats figures for people.

use std::{collections::BTreeMap, time::Duration};

use super::load::injected_panics;

/// Lists faults and panics under readable names.
pub(crate) fn listed(faults: &BTreeMap<&'static str, u64>) -> Vec<String> {
    let (actors, registry) = injected_panics();
    let sum = |names: &[&str]| names.iter().filter_map(|name| faults.get(name)).sum();
    let groups = [
        ("503", sum(&["status_503"])),
        ("502", sum(&["status_502"])),
        ("429", sum(&["status_429"])),
        ("slow", sum(&["delay", "slow_body"])),
        ("dropped", sum(&["drop_before"])),
        ("garbage", sum(&["garbage"])),
        ("lost response (grace)", sum(&["drop_after", "cut_at", "status_after", "late_processing"])),
        ("actor panic", actors),
        ("registry panic", registry),
    ];
    let some: Vec<_> = groups.iter().filter(|(_, times)| *times > 0).collect();
    let texts: Vec<_> = some.iter().map(|(name, times)| format!("{name} x{times}")).collect();
    if texts.is_empty() { vec!["none yet".to_owned()] } else { texts }
}

/// Appends the items to a head, in lines of at most [`COLUMNS`] if an item fits.
pub(crate) fn folded(head: &str, items: &[String]) -> String {
    let (mut text, mut width) = (head.to_owned(), head.len());
    for (place, item) in items.iter().enumerate() {
        let gap = if place == 0 { "" } else { "  " };
        if width + gap.len() + item.len() > COLUMNS && place > 0 {
            text += &format!("\n{:indent$}{item}", "", indent = head.len());
            width = head.len() + item.len();
        } else {
            text += &format!("{gap}{item}");
            width += gap.len() + item.len();
        }
    }
    text
}

/// The width of the output.
const COLUMNS: usize = 100;

/// Formats `1284` as `1 284`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn per_second(count: f64, elapsed: Duration) -> String {
    let rate = count / elapsed.as_secs_f64().max(0.001);
    match rate {
        1_000_000.0.. => format!("{:.1} M/s", rate / 1e6),
        1_000.0.. => format!("{:.0} k/s", rate / 1e3),
        _ => format!("{rate:.0}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([7, 999, 1_284, 3_100_000].map(grouped), ["7", "999", "1 284", "3 100 000"]);
        let second = Duration::from_secs(1);
        let folded = folded("faults  ", &["x".repeat(90), "503 x1".to_owned(), "y".repeat(200), "z".to_owned()]);
        let widths: Vec<_> = folded.lines().map(str::len).collect();
        assert_eq!(widths, [98, 14, 208, 9], "{folded}");
        assert_eq!([3.0, 1_500.0, 3_100_000.0].map(|count| per_second(count, second)), ["3/s", "2 k/s", "3.1 M/s"]);
    }
}
