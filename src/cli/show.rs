//! Output: one JSON object for programs, text of at most a hundred columns for people. Tables of names are as wide as the
//! names are, unless they must fit a terminal.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _, Write as _},
};

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

/// The columns of the terminal that stdout is; `None` if it is none, as in a pipe: then nothing is cut.
pub(super) fn terminal_width() -> Option<usize> {
    const USUAL: usize = 80;
    let stdout = io::stdout();
    let size = || terminal_size::terminal_size_of(&stdout).map(|(width, _)| usize::from(width.0));
    stdout.is_terminal().then(|| size().filter(|width| *width > 0).unwrap_or(USUAL))
}

/// A header and rows. Columns are two spaces apart and as wide as their widest cell; numbers are right-aligned.
pub(super) struct RowTable {
    rows: Vec<Vec<String>>,
    /// The columns with names. On a terminal that is too narrow they are cut in the middle, unless two names would then look
    /// alike.
    names: &'static [usize],
    /// Another header, for a terminal that is too narrow.
    short: &'static [&'static str],
}

impl RowTable {
    pub(super) fn new(header: &[&str], names: &'static [usize]) -> Self {
        Self { rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()], names, short: &[] }
    }

    pub(super) fn short(self, short: &'static [&'static str]) -> Self {
        Self { short, ..self }
    }

    pub(super) fn rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Formats the table for the terminal that stdout is, or in full.
    pub(super) fn text(self) -> String {
        self.text_within(terminal_width())
    }

    fn text_within(mut self, width: Option<usize>) -> String {
        let Some(width) = width.filter(|width| self.width() > *width) else { return self.laid_out() };
        if let (Some(header), false) = (self.rows.first_mut(), self.short.is_empty()) {
            *header = self.short.iter().map(|&cell| cell.to_owned()).collect();
        }
        let excess = self.width().saturating_sub(width);
        self.cut_names(excess);
        self.laid_out()
    }

    /// Cuts names, the widest column first, until the table is that much narrower.
    fn cut_names(&mut self, excess: usize) {
        const NARROWEST: usize = 12;
        let mut widths: Vec<_> = self.names.iter().map(|column| (self.column_width(*column), *column)).collect();
        for _ in 0..excess {
            match widths.iter_mut().max() {
                Some((width, _)) if *width > NARROWEST => *width -= 1,
                _ => break,
            }
        }
        for (width, column) in widths {
            let whole: BTreeSet<_> = self.cells(column).map(str::to_owned).collect();
            let short: BTreeSet<_> = whole.iter().map(|cell| cut_in_the_middle(cell, width)).collect();
            if short.len() < whole.len() {
                continue;
            }
            for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(column)) {
                *cell = cut_in_the_middle(cell, width);
            }
        }
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(column)).map(String::as_str)
    }

    fn column_width(&self, column: usize) -> usize {
        self.cells(column).map(width_of).max().unwrap_or(0)
    }

    fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn width(&self) -> usize {
        (0..self.columns()).map(|column| self.column_width(column) + 2).sum::<usize>().saturating_sub(2)
    }

    fn laid_out(&self) -> String {
        let is_number = |cell: &str| cell.bytes().all(|byte| byte.is_ascii_digit());
        let column = |at: usize| (self.column_width(at), self.cells(at).skip(1).all(is_number));
        let columns: Vec<_> = (0..self.columns()).map(column).collect();
        let line = |row: &Vec<String>| {
            let cell = |(cell, (width, number)): (&String, &(usize, bool))| {
                let space = " ".repeat(width - width_of(cell));
                if *number { space + cell } else { cell.clone() + &space }
            };
            let cells: Vec<_> = row.iter().zip(&columns).map(cell).collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// The columns that the text takes, without the codes of colours.
fn width_of(text: &str) -> usize {
    let coloured = text.split('\x1b').enumerate();
    coloured
        .map(|(at, part)| if at == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) }.width())
        .sum()
}

/// Cuts the text to `width` columns at its end.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width { text.to_owned() } else { start_of(text.chars(), width - 1) + "…" }
}

/// Cuts the text to `width` columns in its middle: the ends of names say most.
fn cut_in_the_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let tail = start_of(text.chars().rev(), (width - 1) / 2);
    start_of(text.chars(), width / 2) + "…" + &tail.chars().rev().collect::<String>()
}

/// As many characters as fit into `left` columns.
fn start_of(chars: impl Iterator<Item = char>, mut left: usize) -> String {
    let fits = |char: &char| {
        let rest = left.checked_sub(char.width().unwrap_or(0));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    chars.take_while(fits).collect()
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

/// Wraps the text at the width of the terminal, at most a hundred columns, and indents each line.
pub(super) fn folded(text: &str, indent: usize) -> String {
    folded_within(text, indent, columns())
}

fn folded_within(text: &str, indent: usize, columns: usize) -> String {
    let (mut folded, mut width) = (String::new(), columns);
    for word in text.split_whitespace() {
        let length = word.width();
        if width + 1 + length > columns {
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

/// The widest line of text output: that of the terminal, and a hundred columns at most.
pub(super) fn columns() -> usize {
    terminal_width().map_or(100, |width| width.clamp(40, 100))
}

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

    fn table(rows: &[&[&str]]) -> RowTable {
        let cells = |row: &&[&str]| row.iter().map(|&cell| cell.to_owned()).collect();
        RowTable::new(rows[0], &[0]).rows(rows[1..].iter().map(cells))
    }

    #[test]
    fn columns_are_aligned() {
        let rows: [&[&str]; 3] = [&["idp", "gen", "health"], &["github", "41", "ok"], &["ä", "7", "-"]];
        assert_eq!(table(&rows).text_within(None), "idp     gen  health\ngithub   41  ok\nä         7  -\n");
        assert_eq!([cut("github", 6), cut("github", 5)], ["github", "gith…"]);
        let coloured: [&[&str]; 2] = [&["idp", "x"], &["\x1b[1;32mok\x1b[0m", "y"]];
        assert_eq!(table(&coloured).text_within(None), "idp  x\n\x1b[1;32mok\x1b[0m   y\n");
    }

    #[test]
    fn names_are_cut_on_a_narrow_terminal_unless_two_would_look_alike() {
        let rows = |one, other| -> [[&'static str; 2]; 3] { [["user", "gen"], [one, "1"], [other, "12"]] };
        let within = |rows: [[&str; 2]; 3], width| table(&rows.each_ref().map(|row| &row[..])).text_within(width);
        let names = rows("alice-with-a-long-name@example.com", "robert-with-a-long-name@example.com");
        let whole = within(names, None);
        assert!(whole.contains(names[1][0]) && whole.contains(names[2][0]));
        assert_eq!(within(names, Some(40)), whole);
        let cut = within(names, Some(30));
        assert!(cut.lines().all(|line| line.width() <= 30), "{cut}");
        assert!(cut.contains("alice-with-a…@example.com    1\n"), "{cut}");
        let alike = rows("a-long-name-of-a-user@example.com", "a-long-name-of-another@example.com");
        assert_eq!(within(alike, Some(30)), within(alike, None));
        let rows: [&[&str]; 2] = [&["user", "generation"], &["alice", "1"]];
        let short = table(&rows).short(&["user", "gen"]);
        assert_eq!(short.text_within(Some(12)), "user   gen\nalice    1\n");
        assert_eq!(cut_in_the_middle("李雷李雷李雷", 7), "李…雷");
    }

    #[test]
    fn wide_characters_count_as_two_columns_and_hidden_ones_are_escaped() {
        let rows: [&[&str]; 3] = [&["user", "gen"], &["李雷", "1"], &["ab", "2"]];
        assert_eq!(table(&rows).text_within(None), "user  gen\n李雷    1\nab      2\n");
        assert_eq!([cut("李雷", 4), cut("李雷", 3), cut("李雷x", 4)], ["李雷", "李…", "李…"]);
        assert_eq!(visible("al\u{202e}ice\n李"), "al\\u{202e}ice\\u{a}李");
    }

    #[test]
    fn text_is_wrapped_at_the_width_of_the_terminal() {
        for width in [100, 80, 40] {
            let folded = folded_within(&"word ".repeat(40), 2, width);
            assert!(folded.lines().all(|line| line.starts_with("  word") && line.len() <= width), "{folded}");
            assert_eq!(folded.lines().count(), 200_usize.div_ceil((width - 2) / 5 * 5));
        }
    }
}
