//! A page of the documentation, as far as it is checked.

use std::{fs, path::Path};

use super::root;

pub(super) struct Page {
    /// Its path from the top of the sources.
    pub(super) name: String,
    /// Its lines that are no code.
    pub(super) prose: Vec<(usize, String)>,
    pub(super) blocks: Vec<Block>,
}

/// A fenced block.
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Of its first line.
    pub(super) line: usize,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Shell,
    /// A command that serves until it is stopped.
    Background,
    Python,
    Toml,
    Cargo,
    /// Checked elsewhere, or not at all.
    Shown,
    Unknown,
}

impl Kind {
    fn of(fence: &str) -> Self {
        match fence {
            "sh" => Self::Shell,
            "sh background" => Self::Background,
            "python" => Self::Python,
            "toml" => Self::Toml,
            "toml cargo" => Self::Cargo,
            "rust" | "text" | "json" | "nginx" | "ini" => Self::Shown,
            _ if fence.strip_prefix("sh not run: ").is_some_and(|reason| !reason.is_empty()) => Self::Shown,
            _ => Self::Unknown,
        }
    }
}

impl Page {
    pub(super) fn read(path: &Path) -> Self {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let (mut prose, mut blocks) = (Vec::new(), Vec::<Block>::new());
        let mut within = false;
        for (at, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), within) {
                (Some(fence), false) => {
                    blocks.push(Block { kind: Kind::of(fence), line: at + 2, text: String::new() });
                    within = true;
                }
                (Some(_), true) => within = false,
                (None, true) => blocks.last_mut().unwrap().text += &format!("{line}\n"),
                (None, false) => prose.push((at + 1, line.to_owned())),
            }
        }
        assert!(!within, "{name}: a block does not end");
        Self { name, prose, blocks }
    }

    /// What its links call its headings, as GitHub makes it.
    pub(super) fn anchors(&self) -> Vec<String> {
        let headings = self.prose.iter().filter_map(|(_, line)| line.trim_start_matches('#').strip_prefix(' '));
        let slug = |heading: &str| {
            let kept = heading.to_lowercase().replace(' ', "-");
            kept.chars().filter(|char| char.is_alphanumeric() || "-_".contains(*char)).collect()
        };
        headings.map(slug).collect()
    }

    /// The lines between the heading that is named so and the next of its level or above; none if there is none.
    pub(super) fn section(&self, heading: &str) -> Option<String> {
        let level = |line: &str| line.len() - line.trim_start_matches('#').len();
        let mut lines = self.prose.iter().map(|(_, line)| line).skip_while(|line| *line != heading);
        let top = level(lines.next()?);
        let lines = lines.take_while(|line| level(line) == 0 || level(line) > top);
        Some(lines.map(|line| format!("{line}\n")).collect())
    }
}
