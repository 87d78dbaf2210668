//! The presets, by their names in the file.

use std::collections::BTreeMap;

use crate::{idp::Idp, presets};

/// A preset and its parameters.
pub(super) struct Preset {
    pub(super) name: &'static str,
    params: &'static [Param],
    /// Creates the provider from the values of `params` in their order; without a client.
    make: fn(&[String]) -> Idp,
}

/// A parameter of a preset, set in `params`.
#[derive(Clone, Copy)]
pub(super) enum Param {
    /// The parameter is required; the text is an example.
    Needed { name: &'static str, example: &'static str },
    /// The parameter has this default.
    Usually { name: &'static str, default: &'static str },
}

const fn needed(name: &'static str, example: &'static str) -> Param {
    Param::Needed { name, example }
}

const fn usually(name: &'static str, default: &'static str) -> Param {
    Param::Usually { name, default }
}

const fn plain(name: &'static str, make: fn(&[String]) -> Idp) -> Preset {
    Preset { name, params: &[], make }
}

pub(super) const PRESETS: [Preset; 15] = [
    plain("atlassian", |_| presets::atlassian("", "")),
    plain("bitbucket", |_| presets::bitbucket("", "")),
    plain("box", |_| presets::box_com("", "")),
    plain("discord", |_| presets::discord("", "")),
    Preset {
        name: "entra",
        params: &[needed("tenant", "contoso.onmicrosoft.com")],
        make: |params| presets::entra(&params[0], "", ""),
    },
    plain("github", |_| presets::github("", "")),
    Preset {
        name: "gitlab",
        params: &[usually("base", "https://gitlab.com")],
        make: |params| presets::gitlab_at(&params[0], "", ""),
    },
    plain("google", |_| presets::google("", "")),
    plain("hubspot", |_| presets::hubspot("", "")),
    Preset {
        name: "keycloak",
        params: &[needed("base", "https://sso.example.com"), needed("realm", "app")],
        make: |params| presets::keycloak(&params[0], &params[1], "", ""),
    },
    plain("oauth2", |_| presets::oauth2("", "", "")),
    Preset {
        name: "okta",
        params: &[needed("issuer", "https://acme.okta.com/oauth2/default")],
        make: |params| presets::okta(&params[0], "", ""),
    },
    Preset {
        name: "salesforce",
        params: &[usually("base", "https://login.salesforce.com")],
        make: |params| presets::salesforce_at(&params[0], "", ""),
    },
    plain("slack", |_| presets::slack("", "")),
    plain("zoom", |_| presets::zoom("", "")),
];

impl Preset {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Whether the preset has this parameter; others belong to the identity provider.
    pub(super) fn takes(&self, param: &str) -> bool {
        let takes = |(Param::Needed { name, .. } | Param::Usually { name, .. }): &Param| *name == param;
        self.params.iter().any(takes)
    }

    /// Returns the required parameters, each with an example.
    pub(super) fn needs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.params.iter().filter_map(|param| match *param {
            Param::Needed { name, example } => Some((name, example)),
            Param::Usually { .. } => None,
        })
    }

    /// Removes the preset's parameters from `params` and returns the provider.
    ///
    /// # Errors
    /// The parameter that is missing.
    pub(super) fn make(&self, params: &mut BTreeMap<String, String>) -> Result<Idp, String> {
        let value = |param: &Param| match *param {
            Param::Needed { name, example } => params.remove(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                format!("preset {} needs {name}: write params = {{ {name} = \"{example}\" }}", self.name)
            }),
            Param::Usually { name, default } => Ok(params.remove(name).unwrap_or_else(|| default.to_owned())),
        };
        let values: Vec<_> = self.params.iter().map(value).collect::<Result<_, _>>()?;
        Ok((self.make)(&values))
    }
}
