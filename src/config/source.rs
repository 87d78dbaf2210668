//! The sources of a configuration: a file, the environment, and the files of `{ file = "PATH" }` values.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::{ConfigError, Origin};

/// The paths where the configuration file is searched for.
pub(super) const PLACES: [&str; 2] = ["token-supervisor.toml", "/etc/token-supervisor/config.toml"];
/// The variable that names the file.
const VARIABLE: &str = "TOKEN_SUPERVISOR_CONFIG";
/// The largest size of a file: far more than any configuration needs.
const MAX_FILE: u64 = 1 << 20;

/// The environment, passed in by the program.
pub(super) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    pub(super) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        // A name that is not UTF-8 is none of ours.
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Self(variables.into_iter().filter_map(named).collect())
    }

    /// # Errors
    /// The variable is not set, or not UTF-8. The message does not repeat its name: an operator may have put a secret there.
    pub(super) fn get(&self, name: &str) -> Result<Zeroizing<String>, &'static str> {
        let value = self.0.get(name).ok_or("the environment variable that it names is not set: set it")?;
        let text = value.to_str().ok_or("the environment variable is not valid UTF-8: correct it")?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// Returns the variables that start with `prefix`, without it.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.keys().filter_map(move |name| Some((name.as_str(), name.strip_prefix(prefix)?)))
    }
}

/// The configuration file as it was read.
pub(super) struct Source {
    /// `None`: everything comes from the environment.
    pub(super) path: Option<PathBuf>,
    pub(super) text: Zeroizing<String>,
    pub(super) environment: Environment,
}

impl Source {
    /// Reads the file at `path`, else the one that the environment names, else the first that exists among `places`.
    pub(super) fn find<'a>(
        path: Option<&'a Path>,
        environment: Environment,
        places: &[&'a str],
    ) -> Result<Self, ConfigError> {
        let named = environment.0.get(VARIABLE).filter(|path| !path.is_empty()).map(Path::new);
        // A file that cannot be examined is unreadable, not missing.
        let usual = || places.iter().map(Path::new).find(|place| place.try_exists().unwrap_or(true));
        let path = path.or(named).or_else(usual).map(Path::to_owned);
        if path.is_none() && !super::node::overrides(&environment) {
            let text = format!(
                "no configuration at {}, and --config and {VARIABLE} name none: create one with `token-supervisor init`",
                places.join(" or ")
            );
            return Err(ConfigError::missing(text));
        }
        let mut source = Self { path, text: Zeroizing::default(), environment };
        source.text = source.read()?;
        Ok(source)
    }

    /// Reads the current text of the file.
    pub(super) fn read(&self) -> Result<Zeroizing<String>, ConfigError> {
        let Some(path) = &self.path else { return Ok(Zeroizing::default()) };
        read(path).map_err(|error| {
            let cannot = format!("cannot read the configuration file {}: {error}", path.display());
            match error.kind() {
                io::ErrorKind::NotFound => ConfigError::missing(format!(
                    "{cannot}; check the path, or create one with `token-supervisor init`"
                )),
                io::ErrorKind::InvalidData => {
                    ConfigError::one(Origin::Default, "", format!("{cannot}; it must be a UTF-8 text"))
                }
                _ => ConfigError::one(Origin::Default, "", format!("{cannot}; check its path, owner and mode")),
            }
        })
    }
}

/// The files of values, with the digest of each as it was read; `None` for an unreadable one.
pub(super) type ValueFiles = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// Reads a value from its file. A byte order mark at the start and white space at the end are not part of it: editors and
/// shells leave them there.
pub(super) fn value_in(path: &Path, files: &mut ValueFiles) -> io::Result<Zeroizing<String>> {
    let text = read(path);
    files.insert(path.to_owned(), digest(&text));
    let text = text?;
    let value = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
    Ok(Zeroizing::new(value.to_owned()))
}

/// Reads the same files again.
pub(super) fn look_again(files: &ValueFiles) -> ValueFiles {
    files.keys().map(|path| (path.clone(), digest(&read(path)))).collect()
}

fn digest(text: &io::Result<Zeroizing<String>>) -> Option<[u8; 32]> {
    text.as_ref().ok().map(|text| Sha256::digest(text.as_bytes()).into())
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let length = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}
