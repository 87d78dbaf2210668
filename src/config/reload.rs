//! A configuration that is read again while the supervisor runs.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, Origin,
    source::{Environment, PLACES, Source, ValueFiles, look_again},
};
use crate::{keyring::Keyring, supervisor::TokenSupervisor};

/// A configuration that can be read again. A new one with problems is refused as a whole, and the old one stays.
///
/// Reading the files blocks: call it on a thread that may block.
pub struct Reloader {
    source: Source,
    config: Config,
    /// The files of `{ file = "PATH" }` values, as they were when they were last read.
    seen: ValueFiles,
    /// The key file, as it was when it was last read.
    key_file: ValueFiles,
}

/// The changes of a new configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The identity providers that were added or have new settings. The supervisor has them already.
    pub idps: Vec<String>,
    /// Whether the server must take over a new public URL or new API keys.
    pub server: bool,
    /// The settings and sections that changed and need a restart.
    pub restart: Vec<String>,
}

impl Reloader {
    /// Reads a configuration as [`Config::load`] does.
    ///
    /// # Errors
    /// All problems, each with its place.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let source = Source::find(path, Environment::new(environment), &PLACES)?;
        let config = Config::read(&source, &source.text)?;
        let seen = config.files.clone();
        // Before the builder reads it: what changes in between is found later.
        let key_file = look_again(&ValueFiles::from([(config.keyring.clone(), None)]));
        Ok(Self { source, config, seen, key_file })
    }

    /// Returns the configuration that was last accepted.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads everything again, for a SIGHUP. Identity providers with new settings get them at once; those that did not
    /// change are left alone.
    ///
    /// # Errors
    /// All problems of the new configuration; the old one stays.
    pub fn reload(&mut self, supervisor: &TokenSupervisor) -> Result<Changes, ConfigError> {
        let text = self.source.read()?;
        let config = Config::read(&self.source, &text)?;
        let changes = self.accept(config, supervisor)?;
        self.source.text = text;
        Ok(changes)
    }

    /// Checks the files of `{ file = "PATH" }` values and, if one has changed, takes over the new values. Call it every few
    /// seconds. The configuration file itself is not read: it may be half written.
    ///
    /// # Errors
    /// The problems of the new values, reported once for each change; the old values stay.
    pub fn poll(&mut self, supervisor: &TokenSupervisor) -> Result<Option<Changes>, ConfigError> {
        let now = look_again(&self.seen);
        if now == self.seen {
            return Ok(None);
        }
        self.seen = now;
        let config = Config::read(&self.source, &self.source.text)?;
        self.accept(config, supervisor).map(Some)
    }

    /// Reads the key file, if it has changed since it was last read or if `again`, as for a SIGHUP. Give the keys to
    /// [`TokenSupervisor::set_keyring`]. Call it every few seconds.
    ///
    /// # Errors
    /// The file cannot be read or is no key file, reported once for each change.
    pub fn new_keys(&mut self, again: bool) -> Result<Option<Keyring>, ConfigError> {
        let now = look_again(&self.key_file);
        if now == self.key_file && !again {
            return Ok(None);
        }
        self.key_file = now;
        let read = |path: &PathBuf| {
            Keyring::from_file(path)
                .map_err(|error| ConfigError::one(Origin::Default, "keyring.file", error.to_string()))
        };
        self.key_file.keys().next().map(read).transpose()
    }

    fn accept(&mut self, new: Config, supervisor: &TokenSupervisor) -> Result<Changes, ConfigError> {
        let old = &self.config;
        if old.server.unguarded().is_none() && new.server.unguarded().is_some() {
            let text = "the last API key cannot be removed while the server runs: add another one first";
            return Err(ConfigError::one(Origin::Default, "server.api_key", text.to_owned()));
        }
        // All providers were checked. If one is refused all the same, the next reload starts from the old settings again.
        let mut idps = Vec::new();
        for (name, idp) in new.idps.iter().filter(|(name, idp)| old.idps.get(*name) != Some(idp)) {
            supervisor
                .set_idp(name, idp.clone())
                .map_err(|error| ConfigError::one(Origin::Default, format!("idp.{name}"), error.to_string()))?;
            idps.push(name.clone());
        }
        let server = (&old.server.public_url, &old.server.api_keys) != (&new.server.public_url, &new.server.api_keys);
        let changes = Changes { idps, server, restart: waiting(old, &new) };
        self.seen = new.files.clone();
        self.config = new;
        Ok(changes)
    }
}

/// Returns the settings that cannot change while the supervisor runs.
fn waiting(old: &Config, new: &Config) -> Vec<String> {
    let mut limits = old.limits;
    limits.history_kept = new.limits.history_kept;
    let fixed = [
        ("deployment", old.deployment != new.deployment),
        ("server.bind", old.server.bind != new.server.bind),
        ("server.max_connections", old.server.max_connections != new.server.max_connections),
        ("store.url", old.store != new.store),
        ("journal.dir", old.journal != new.journal),
        ("journal.keep_hours", old.limits.history_kept != new.limits.history_kept),
        ("keyring.file", old.keyring != new.keyring),
        ("limits", limits != new.limits),
        ("retention", old.retention != new.retention),
        ("log", old.log != new.log),
    ];
    let gone = old.idps.keys().filter(|name| !new.idps.contains_key(*name)).map(|name| format!("idp.{name}"));
    fixed.into_iter().filter(|(_, changed)| *changed).map(|(path, _)| path.to_owned()).chain(gone).collect()
}
