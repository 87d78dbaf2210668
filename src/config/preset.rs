//! The presets by their names in the file.

use std::collections::BTreeMap;

use crate::{idp::Idp, presets};

/// A preset, and what it must be told.
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) params: &'static [Param],
    /// Given the values of `params` in their order; without a client.
    make: fn(&[String]) -> Idp,
}

/// What a preset is told in `params`.
pub(super) struct Param {
    pub(super) name: &'static str,
    /// None: it must be set.
    pub(super) default: Option<&'static str>,
    pub(super) example: &'static str,
}

const fn needed(name: &'static str, example: &'static str) -> Param {
    Param { name, default: None, example }
}

const fn usually(name: &'static str, default: &'static str, example: &'static str) -> Param {
    Param { name, default: Some(default), example }
}

const fn plain(name: &'static str, make: fn(&[String]) -> Idp) -> Preset {
    Preset { name, params: &[], make }
}

pub(super) const PRESETS: [Preset; 5] = [
    plain("bitbucket", |_| presets::bitbucket("", "")),
    plain("github", |_| presets::github("", "")),
    Preset {
        name: "gitlab",
        params: &[usually("base", "https://gitlab.com", "https://git.example.com")],
        make: |params| presets::gitlab_at(&params[0], "", ""),
    },
    Preset {
        name: "keycloak",
        params: &[needed("base", "https://sso.example.com"), needed("realm", "app")],
        make: |params| presets::keycloak(&params[0], &params[1], "", ""),
    },
    plain("oauth2", |_| presets::oauth2("", "", "")),
];

impl Preset {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Whether it is told this, rather than its identity provider.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.params.iter().any(|param| param.name == name)
    }

    /// Takes what the preset must be told out of `params`.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn make(&self, params: &mut BTreeMap<String, String>) -> Result<Idp, String> {
        let value = |param: &Param| {
            let value = params.remove(param.name).or_else(|| param.default.map(str::to_owned));
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                let Param { name, example, .. } = param;
                format!("preset {} needs {name}: write params = {{ {name} = \"{example}\" }}", self.name)
            })
        };
        let values: Vec<_> = self.params.iter().map(value).collect::<Result<_, _>>()?;
        Ok((self.make)(&values))
    }
}

/// For the message about one that is not known.
pub(super) fn names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}
