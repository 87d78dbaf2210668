//! What is wrong with a configuration, and where each of its values came from.

use std::{fmt, path::PathBuf};

use crate::error::Error;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The preset of an identity provider.
    Preset {
        /// Its name.
        name: &'static str,
    },
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
    },
    /// An environment variable: an override, or one that `{ env = "NAME" }` names.
    Env {
        /// Its name.
        name: String,
    },
    /// The file that `{ file = "PATH" }` names.
    FileValue {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset { name } => write!(f, "preset {name}"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env { name } => write!(f, "environment variable {name}"),
            Self::FileValue { path } => write!(f, "file {}", path.display()),
        }
    }
}

/// One thing that is wrong. It never carries a value, nor anything else of the line, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigProblem {
    /// Where to look.
    pub origin: Origin,
    /// The setting, such as `idp.github.client_secret`; of one that is not known, its section.
    pub path: String,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// A configuration that cannot be used, with everything that is wrong with it, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
    missing: bool,
}

impl ConfigError {
    /// What is wrong; at least one thing.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }

    /// Whether there is no file at all.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// Nothing, or what is wrong in the order of its places.
    pub(super) fn unless_empty(mut problems: Vec<ConfigProblem>) -> Result<(), Self> {
        problems.sort_by_key(|problem| match problem.origin {
            Origin::File { line, .. } => line,
            _ => usize::MAX,
        });
        if problems.is_empty() { Ok(()) } else { Err(Self { problems, missing: false }) }
    }

    pub(super) fn one(origin: Origin, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { problems: vec![ConfigProblem { origin, path: path.into(), text: text.into() }], missing: false }
    }

    /// There is no file.
    pub(super) fn missing(text: String) -> Self {
        Self { missing: true, ..Self::one(Origin::Default, "", text) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}
