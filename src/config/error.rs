//! The problems of a configuration, and the origin of each of its values.

use std::{fmt, path::PathBuf};

use crate::error::Error;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The default: the setting is not set.
    Default,
    /// The preset of an identity provider.
    Preset {
        /// The name.
        name: &'static str,
    },
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The character in the line, counted from 1.
        column: usize,
    },
    /// An environment variable: an override, or the variable that `{ env = "NAME" }` names.
    Env {
        /// The name.
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

/// A problem of one setting. It never carries a value, nor another part of the line, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigProblem {
    /// Where the setting stands.
    pub origin: Origin,
    /// The setting, such as `idp.github.client_secret`; the section of an unknown setting.
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

/// The reasons why a configuration cannot be used: all problems, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
    missing: bool,
}

impl ConfigError {
    /// Returns the problems; there is at least one.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }

    /// Whether there is no configuration file.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// Returns the error for these problems, in the order of their places; `Ok` if there are none.
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

    /// The error of a missing file.
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
