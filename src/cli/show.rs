//! Output: one JSON object for programs, text of at most a hundred columns for people.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::CliFailure;

/// The form of the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

impl Out {
    /// Prints a result in the requested form. A closed pipe is no failure.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn result(self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliFailure> {
        if self.json {
            let json = serde_json::to_string(json).expect("results serialize to JSON");
            self.text(&(json + "\n"))
        } else {
            self.text(&text())
        }
    }

    /// Prints the text unchanged.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn text(self, text: &str) -> Result<(), CliFailure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Prints a note to stderr, apart from the result.
pub(super) fn note(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Formats a header and rows. Columns are two spaces apart and as wide as their widest cell; numbers are right-aligned.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let column = |at: usize| {
        let cells = || rows.iter().filter_map(move |row| row.get(at));
        let width = cells().map(|cell| cell.width()).max().unwrap_or(0);
        (width, cells().skip(1).all(|cell| cell.bytes().all(|byte| byte.is_ascii_digit())))
    };
    let columns: Vec<_> = (0..columns).map(column).collect();
    let line = |row: &Vec<String>| {
        let cell = |(cell, (width, number)): (&String, &(usize, bool))| {
            let space = " ".repeat(width - cell.width());
            if *number { space + cell } else { cell.clone() + &space }
        };
        let cells: Vec<_> = row.iter().zip(&columns).map(cell).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Cuts the text to `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width - 1;
    let fits = |char: &char| {
        let rest = left.checked_sub(char.width().unwrap_or(0));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// Escapes control and direction characters of foreign text, which would change how the rest of the line is displayed.
pub(super) fn visible(text: &str) -> String {
    let changes = |char: char| {
        let turns =
            matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || char.is_control()
    };
    text.chars().fold(String::new(), |mut visible, char| {
        match changes(char) {
            true => visible.extend(char.escape_unicode()),
            false => visible.push(char),
        }
        visible
    })
}

/// Wraps the text at a hundred columns and indents each line.
pub(super) fn folded(text: &str, indent: usize) -> String {
    let (mut folded, mut width) = (String::new(), COLUMNS);
    for word in text.split_whitespace() {
        let length = word.width();
        if width + 1 + length > COLUMNS {
            folded += if folded.is_empty() { "" } else { "\n" };
            folded += &format!("{:indent$}{word}", "");
            width = indent + length;
        } else {
            folded += &format!(" {word}");
            width += 1 + length;
        }
    }
    folded
}

/// Puts the text behind a head of that width, with its lines aligned.
pub(super) fn beside(head: &str, width: usize, text: &str) -> String {
    format!("{head}{}", folded(text, width).trim_start())
}

/// The widest line of text output.
pub(super) const COLUMNS: usize = 100;

/// Colours the text if stdout is a terminal and `NO_COLOR` is not set.
pub(crate) fn coloured(text: &str, colour: u8) -> String {
    let wanted = colours_wanted() && io::stdout().is_terminal();
    if wanted { format!("\x1b[1;{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

pub(super) fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["idp", "gen", "health"], vec!["github", "41", "ok"], vec!["ä", "7", "-"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(table(&rows), "idp     gen  health\ngithub   41  ok\nä         7  -\n");
        assert_eq!([cut("github", 6), cut("github", 5)], ["github", "gith…"]);
    }

    #[test]
    fn wide_characters_count_as_two_columns_and_hidden_ones_are_escaped() {
        let rows = [vec!["user", "gen"], vec!["李雷", "1"], vec!["ab", "2"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(table(&rows), "user  gen\n李雷    1\nab      2\n");
        assert_eq!([cut("李雷", 4), cut("李雷", 3), cut("李雷x", 4)], ["李雷", "李…", "李…"]);
        assert_eq!(visible("al\u{202e}ice\n李"), "al\\u{202e}ice\\u{a}李");
    }

    #[test]
    fn text_is_wrapped_at_a_hundred_columns() {
        let folded = folded(&"word ".repeat(40), 2);
        assert!(folded.lines().all(|line| line.starts_with("  word") && line.len() <= 100), "{folded}");
        assert_eq!(folded.lines().count(), 3);
    }
}
