//! Reads a page of the documentation.

use std::{fs, path::Path};

use super::root;

pub(super) struct Page {
    /// The path from the root of the source tree.
    pub(super) name: String,
    /// The lines outside of blocks, with their numbers.
    pub(super) prose: Vec<(usize, String)>,
    pub(super) blocks: Vec<Block>,
}

/// A fenced block.
pub(super) struct Block {
    pub(super) kind: Kind,
    /// The number of its first line.
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
    /// A block that is checked elsewhere, or not at all.
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
        assert!(!within, "{name}: a block is not closed");
        Self { name, prose, blocks }
    }

    /// Returns the anchors of the headings, as GitHub generates them.
    pub(super) fn anchors(&self) -> Vec<String> {
        let headings = self.prose.iter().filter_map(|(_, line)| line.trim_start_matches('#').strip_prefix(' '));
        let slug = |heading: &str| {
            let kept = heading.to_lowercase().replace(' ', "-");
            kept.chars().filter(|char| char.is_alphanumeric() || "-_".contains(*char)).collect()
        };
        headings.map(slug).collect()
    }

    /// Returns the lines from a heading to the next one of its level or above, if the heading exists.
    pub(super) fn section(&self, heading: &str) -> Option<String> {
        let level = |line: &str| line.len() - line.trim_start_matches('#').len();
        let mut lines = self.prose.iter().map(|(_, line)| line).skip_while(|line| *line != heading);
        let top = level(lines.next()?);
        let lines = lines.take_while(|line| level(line) == 0 || level(line) > top);
        Some(lines.map(|line| format!("{line}\n")).collect())
    }
}
