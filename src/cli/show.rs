//! How results are seen: one JSON object for programs, text of at most a hundred columns for people.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::Failure;

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
    pub(crate) fn result(self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
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
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
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
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        (width, cells().skip(1).all(|cell| cell.bytes().all(|byte| byte.is_ascii_digit())))
    };
    let columns: Vec<_> = (0..columns).map(column).collect();
    let line = |row: &Vec<String>| {
        let cell = |(cell, (width, number)): (&String, &(usize, bool))| {
            if *number { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        };
        let cells: Vec<_> = row.iter().zip(&columns).map(cell).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// At most so many characters of it.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Words in as many lines as a hundred columns take, each after so many spaces.
pub(super) fn folded(text: &str, indent: usize) -> String {
    let (mut folded, mut width) = (String::new(), COLUMNS);
    for word in text.split_whitespace() {
        let length = word.chars().count();
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
const COLUMNS: usize = 100;

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
    fn text_is_folded_at_a_hundred_columns() {
        let folded = folded(&"word ".repeat(40), 2);
        assert!(folded.lines().all(|line| line.starts_with("  word") && line.len() <= 100), "{folded}");
        assert_eq!(folded.lines().count(), 3);
    }
}
