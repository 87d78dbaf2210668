//! How results are seen: one JSON object for programs, text of at most a hundred columns for people.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::CliFailure;

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

impl Out {
    /// Prints a result in the form that was asked for. Nobody has to read it: a closed pipe is no failure.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn result(self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliFailure> {
        if self.json {
            let json = serde_json::to_string(json).expect("what is shown has a JSON form");
            self.text(&(json + "\n"))
        } else {
            self.text(&text())
        }
    }

    /// Prints this as it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn text(self, text: &str) -> Result<(), CliFailure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A line beside the result, for people.
pub(super) fn note(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// A head and rows of columns, two spaces apart, each as wide as its widest cell. Numbers stand at the right.
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

/// At most so many columns of it.
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

/// Text of somebody else, with what would change how the rest of the line is seen written out.
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

/// Words in as many lines as a hundred columns take, each after so many spaces.
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

/// Text behind a head of that width, each of its lines as far in as the first.
pub(super) fn beside(head: &str, width: usize, text: &str) -> String {
    format!("{head}{}", folded(text, width).trim_start())
}

/// What fits on anybody's screen.
pub(super) const COLUMNS: usize = 100;

/// Only for people: a terminal, and nobody who said that they do not want colours.
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
    fn columns_stand_below_each_other() {
        let rows = [vec!["idp", "gen", "health"], vec!["github", "41", "ok"], vec!["ä", "7", "-"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(table(&rows), "idp     gen  health\ngithub   41  ok\nä         7  -\n");
        assert_eq!([cut("github", 6), cut("github", 5)], ["github", "gith…"]);
    }

    #[test]
    fn wide_characters_take_their_columns_and_hidden_ones_are_seen() {
        let rows = [vec!["user", "gen"], vec!["李雷", "1"], vec!["ab", "2"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(table(&rows), "user  gen\n李雷    1\nab      2\n");
        assert_eq!([cut("李雷", 4), cut("李雷", 3), cut("李雷x", 4)], ["李雷", "李…", "李…"]);
        assert_eq!(visible("al\u{202e}ice\n李"), "al\\u{202e}ice\\u{a}李");
    }

    #[test]
    fn text_is_folded_at_a_hundred_columns() {
        let folded = folded(&"word ".repeat(40), 2);
        assert!(folded.lines().all(|line| line.starts_with("  word") && line.len() <= 100), "{folded}");
        assert_eq!(folded.lines().count(), 3);
    }
}
