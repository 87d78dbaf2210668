//! Sections: settings are read by name, and a setting that is never read is a mistake.
//!
//! Reading goes on after a problem, with the previous value of the setting, so that all problems are reported at once; the
//! result is then discarded.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value as Json;

use super::{
    Shown,
    error::{ConfigProblem, Origin},
    field::{HIDDEN, SettingType},
    node::{Node, Table, Value},
    schema::ANY,
    source::{Environment, ValueFiles, value_in},
};

/// The results of reading a configuration.
pub(super) struct SectionReading<'a> {
    environment: &'a Environment,
    /// The folder of the configuration file: paths in the file are relative to it.
    folder: &'a Path,
    pub(super) files: ValueFiles,
    pub(super) problems: Vec<ConfigProblem>,
    pub(super) shown: Vec<Shown>,
    /// The path of every setting that was read, with its JSON Schema; only collected for the schema.
    pub(super) settings: Option<Vec<(String, Json)>>,
}

impl<'a> SectionReading<'a> {
    pub(super) fn new(environment: &'a Environment, folder: &'a Path) -> Self {
        Self { environment, folder, files: ValueFiles::new(), problems: Vec::new(), shown: Vec::new(), settings: None }
    }

    /// Returns the section of the whole configuration.
    pub(super) fn read<T>(&mut self, tree: Table, read: impl FnOnce(&mut Section<'_, 'a>) -> T) -> T {
        Section::new(self, String::new(), Origin::Default, tree).read_with(read)
    }

    /// A value, how it is shown, and its place.
    fn value<T: SettingType>(&mut self, node: Node) -> Result<(T, Option<String>, Origin), String> {
        let (node, elsewhere) = self.resolve(node)?;
        let value = T::read(&node.value)?;
        // A value that is kept out of the file is not shown either.
        let shown = if elsewhere { Some(HIDDEN.to_owned()) } else { value.shown() };
        Ok((value, shown, node.origin))
    }

    /// Replaces `{ env = "NAME" }` and `{ file = "PATH" }` by their values, also in a list. Returns whether there were
    /// any.
    fn resolve(&mut self, node: Node) -> Result<(Node, bool), String> {
        match node.value {
            Value::Table(table) if matches!(table.keys().next().map(String::as_str), Some("env" | "file")) => {
                let mut table = table.into_iter();
                match (table.next(), table.next()) {
                    (Some((kind, named)), None) => Ok((self.stands_for(&kind, &named)?, true)),
                    _ => Err("must have either `env` or `file`, and nothing else".to_owned()),
                }
            }
            Value::List(items) => {
                let (mut resolved, mut any) = (Vec::with_capacity(items.len()), false);
                for item in items {
                    let (item, elsewhere) = self.resolve(item)?;
                    resolved.push(item);
                    any |= elsewhere;
                }
                Ok((Node { origin: node.origin, value: Value::List(resolved) }, any))
            }
            value => Ok((Node { origin: node.origin, value }, false)),
        }
    }

    fn stands_for(&mut self, kind: &str, named: &Node) -> Result<Node, String> {
        let Value::Text(name) = &named.value else { return Err(format!("`{kind}` must be a string")) };
        let (origin, text) = if kind == "env" {
            (Origin::Env { name: name.to_string() }, self.environment.get(name)?)
        } else {
            let path = self.folder.join(name.as_str());
            let text = value_in(&path, &mut self.files)
                .map_err(|error| format!("cannot read the file that it names ({error}): check its path and mode"))?;
            (Origin::FileValue { path }, text)
        };
        Ok(Node { origin, value: Value::Text(text) })
    }
}

/// A table whose settings are being read.
pub(super) struct Section<'r, 'a> {
    reading: &'r mut SectionReading<'a>,
    path: String,
    origin: Origin,
    /// The origin of values that are not set.
    defaults: Origin,
    /// The settings that were not read yet.
    rest: Table,
    /// The settings that were read, with their places if they are set.
    asked: BTreeMap<&'static str, Option<Origin>>,
    /// The number of problems before this section.
    problems_before: usize,
}

impl<'r, 'a> Section<'r, 'a> {
    fn new(reading: &'r mut SectionReading<'a>, path: String, origin: Origin, rest: Table) -> Self {
        let problems_before = reading.problems.len();
        Self { reading, path, origin, defaults: Origin::Default, rest, asked: BTreeMap::new(), problems_before }
    }

    fn read_with<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let result = read(&mut self);
        for (key, node) in std::mem::take(&mut self.rest) {
            let text = unknown(&key, self.asked.keys().copied());
            self.report(node.origin, "", text);
        }
        result
    }

    /// Sets the origin of settings that are not set.
    pub(super) fn defaults_from(&mut self, origin: Origin) {
        self.defaults = origin;
    }

    /// Reads a setting, if it is set.
    pub(super) fn read<T: SettingType>(&mut self, key: &'static str, into: &mut T) {
        self.note::<T>(key, into.shown());
        if let Some(node) = self.take(key) {
            let origin = node.origin.clone();
            match self.reading.value(node) {
                Ok((value, shown, origin)) => {
                    *into = value;
                    self.show(key, shown, origin);
                }
                Err(text) => self.report(origin, key, text),
            }
        } else {
            self.show(key, into.shown(), self.defaults.clone());
        }
    }

    /// Reads a setting with a path, if it is set. `within` puts a path into a folder, unless it is absolute: a path in the
    /// file, and the default, is relative to the file's folder; one in a variable is relative to the working directory.
    pub(super) fn read_path<T: SettingType>(&mut self, key: &'static str, into: &mut T, within: fn(&Path, &T) -> T) {
        let is_override = matches!(self.rest.get(key), Some(Node { value: Value::Variable(_), .. }));
        self.read(key, into);
        if is_override {
            return;
        }
        let (before, path) = (into.shown(), self.path_of(key));
        *into = within(self.reading.folder, into);
        let shown = self.reading.shown.iter_mut().rfind(|shown| shown.path == path);
        if let (Some(shown), Some(value)) = (shown.filter(|shown| Some(&shown.value) == before.as_ref()), into.shown())
        {
            shown.value = value;
        }
    }

    /// Reads a section within this one; a missing section has its defaults.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 'a>) -> T) -> T {
        let (origin, table) = match self.take(key) {
            Some(Node { origin, value: Value::Table(table) }) => (origin, table),
            Some(Node { origin, .. }) => {
                self.report(origin.clone(), key, format!("must be a section: write [{}]", self.path_of(key)));
                (origin, Table::new())
            }
            None => (self.origin.clone(), Table::new()),
        };
        let path = self.path_of(key);
        Section::new(self.reading, path, origin, table).read_with(read)
    }

    /// Reads the sections `[key.NAME]`, whose names must be `valid`.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        valid: impl Fn(&str) -> Result<(), &'static str>,
        mut read: impl FnMut(&str, &mut Section<'_, 'a>),
    ) {
        self.section(key, |all| {
            for (name, node) in std::mem::take(&mut all.rest) {
                let Node { origin, value: Value::Table(table) } = node else {
                    all.report(node.origin, "", format!("must be a section: write [{}.NAME]", all.path));
                    continue;
                };
                match valid(&name) {
                    Ok(()) => {
                        let path = all.path_of(&name);
                        Section::new(all.reading, path, origin, table).read_with(|section| read(&name, section));
                    }
                    Err(text) => all.report(origin, "", text.to_owned()),
                }
            }
        });
    }

    /// Reads a list of sections, `[[key]]` or `key = [{ .. }]`.
    pub(super) fn listed(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'_, 'a>)) {
        let Some(Node { origin, value }) = self.take(key) else { return };
        let items = match value {
            Value::List(items) => items,
            Value::Variable(_) => return self.report(origin, key, FOR_THE_FILE.to_owned()),
            _ => {
                let text = format!("must be a list of sections: write [[{}]]", self.path_of(key));
                return self.report(origin, key, text);
            }
        };
        for (at, Node { origin, value }) in items.into_iter().enumerate() {
            let path = format!("{}[{at}]", self.path_of(key));
            match value {
                Value::Table(table) => Section::new(self.reading, path, origin, table).read_with(&mut read),
                _ => self.reading.problems.push(ConfigProblem { origin, path, text: "must be a section".to_owned() }),
            }
        }
    }

    /// Reads a table of texts with names that the operator chooses; only `plain` ones are shown.
    pub(super) fn texts(&mut self, key: &'static str, plain: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        self.section(key, |section| {
            section.note::<String>(ANY, None);
            for (name, node) in std::mem::take(&mut section.rest) {
                let origin = node.origin.clone();
                match section.reading.value::<String>(node) {
                    Ok((text, shown, origin)) => {
                        let shown = if plain(&name) { shown } else { Some(HIDDEN.to_owned()) };
                        section.show(&name, shown, origin);
                        texts.insert(name, text);
                    }
                    Err(text) => section.report(origin, "", text),
                }
            }
        });
        texts
    }

    /// Reports a setting that only a later version supports. It is never ignored.
    pub(super) fn not_yet(&mut self, key: &'static str) {
        if let Some(node) = self.take(key) {
            self.report(node.origin, key, "this version does not support this setting yet: remove it".to_owned());
        }
    }

    /// Whether the setting is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key) || self.asked.get(key).is_some_and(Option::is_some)
    }

    /// Whether a setting is shown as it is; a value that is derived from a hidden one is hidden, too.
    pub(super) fn is_shown(&self, path: &str, value: &str) -> bool {
        self.reading.shown.iter().any(|shown| shown.path == path && shown.value == value)
    }

    /// Whether the section has no problem so far.
    pub(super) fn is_sound(&self) -> bool {
        self.reading.problems.len() == self.problems_before
    }

    /// Reports a problem of a setting at its place, or at the place of the section if it is not set.
    pub(super) fn wrong(&mut self, key: &str, text: impl Into<String>) {
        let origin = self.asked.get(key).and_then(Option::as_ref).unwrap_or(&self.origin).clone();
        self.report(origin, key, text.into());
    }

    /// Records the JSON Schema of a setting, and its default where no preset sets another.
    fn note<T: SettingType>(&mut self, key: &str, default: Option<String>) {
        let path = self.path_of(key);
        let Some(settings) = &mut self.reading.settings else { return };
        let mut schema = T::schema();
        if let Some(default) = default.filter(|it| !it.is_empty() && it != HIDDEN && self.defaults == Origin::Default) {
            let typed = if schema["type"].is_string() { serde_json::from_str(&default).ok() } else { None };
            schema["default"] = typed.unwrap_or_else(|| default.into());
        }
        settings.push((path, schema));
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        let node = self.rest.remove(key);
        self.asked.insert(key, node.as_ref().map(|node| node.origin.clone()));
        node
    }

    fn show(&mut self, key: &str, value: Option<String>, origin: Origin) {
        if let Some(value) = value {
            let path = self.path_of(key);
            self.reading.shown.push(Shown { path, value, origin });
        }
    }

    fn report(&mut self, origin: Origin, key: &str, text: String) {
        let path = self.path_of(key);
        self.reading.problems.push(ConfigProblem { origin, path, text });
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            (path, "") => path.to_owned(),
            ("", key) => key.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

const FOR_THE_FILE: &str =
    "a list of sections cannot be set by a variable: write it into the file, its secrets as { env = \"NAME\" }";

/// The similarity from which a name is suggested for another, as clap has it.
const ALIKE: f64 = 0.7;

/// The message does not repeat the key: an operator may have written a secret in its place.
fn unknown(key: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    let alike = known.clone().map(|name| (strsim::jaro(key, name), name)).filter(|(alike, _)| *alike > ALIKE);
    match alike.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((_, name)) => format!("unknown key: did you mean `{name}`?"),
        None => format!("unknown key: known here are {}", known.collect::<Vec<_>>().join(", ")),
    }
}
