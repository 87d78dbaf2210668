//! Endpoints with parameters: `https://sso.example/realms/{realm}/token`. Pure.
//!
//! A parameter decides where a token and the client's secret are sent, so a value never changes more than its own part of
//! the URL: in the path it is one segment; in the host it is one label below a name that the template fixes, or one of
//! the values that the settings allow.

use std::collections::BTreeMap;

/// The parameters of a provider's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointParam {
    /// The value for grants that have none of their own.
    pub(crate) default: Option<String>,
    /// The only values that are allowed; any if there are none.
    pub(crate) allowed: Vec<String>,
}

pub(super) type EndpointParams = BTreeMap<String, EndpointParam>;

/// Returns the names of the parameters in a template.
///
/// # Errors
/// Braces that enclose no name.
pub(super) fn names(template: &str) -> Result<Vec<&str>, &'static str> {
    const WRONG: &str = "has braces that enclose no name: write {name} for a parameter";
    let (mut names, mut rest) = (Vec::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, left) = after.split_once('}').ok_or(WRONG)?;
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if before.contains('}') || name.is_empty() || !name.bytes().all(word) {
            return Err(WRONG);
        }
        names.push(name);
        rest = left;
    }
    if rest.contains('}') { Err(WRONG) } else { Ok(names) }
}

/// Returns the names of the parameters in a template; none if it is wrong.
#[cfg(feature = "config")]
pub(crate) fn parameters_of(template: &str) -> Vec<String> {
    names(template).unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// Returns the part of a template in which the host and the port are.
fn authority(template: &str) -> &str {
    let rest = template.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Checks a template with its parameters.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(template: &str, params: &EndpointParams) -> Result<(), String> {
    for name in names(template)? {
        let Some(param) = params.get(name) else {
            return Err(format!("has the parameter {{{name}}}, which is not declared"));
        };
        if let Some((_, after)) = authority(template).rsplit_once('}') {
            let fixed = after.split(':').next().unwrap_or_default();
            let below_a_fixed_name = fixed.strip_prefix('.').is_some_and(|name| name.contains('.'));
            let in_host = authority(template).contains(&format!("{{{name}}}"));
            if in_host && !below_a_fixed_name && param.allowed.is_empty() {
                return Err(format!(
                    "has {{{name}}} at the end of its host, where any value would decide who gets the tokens: list the values with allowed_params"
                ));
            }
        }
    }
    Ok(())
}

/// Returns the URL for these values; the others have their defaults.
///
/// # Errors
/// Why a value cannot be used, or that one is missing.
pub(super) fn render(
    template: &str,
    params: &EndpointParams,
    values: &BTreeMap<String, String>,
) -> Result<String, &'static str> {
    if !template.contains('{') {
        return Ok(template.to_owned());
    }
    let host = authority(template);
    let mut url = template.to_owned();
    for name in names(template)? {
        let param = params.get(name).ok_or("params: the endpoint has a parameter that is not declared")?;
        let value =
            values.get(name).or(param.default.as_ref()).ok_or("params: the endpoint needs one more parameter")?;
        let placeholder = format!("{{{name}}}");
        if !param.allowed.is_empty() && !param.allowed.contains(value) {
            return Err("params: the value of a parameter is not among those that the settings allow");
        }
        let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let allowed = param.allowed.contains(value);
        if host.contains(&placeholder)
            && !allowed
            && !(value.len() <= 63 && !value.is_empty() && value.bytes().all(label))
        {
            return Err("params: the value of a parameter in the host must be letters, digits and hyphens");
        }
        // The segments `.` and `..` would lead out of the path.
        if value.is_empty() || value.trim_matches('.').is_empty() {
            return Err("params: the value of a parameter must not be empty, nor dots alone");
        }
        let encoded = if host.contains(&placeholder) { value.clone() } else { segment(value) };
        url = url.replace(&placeholder, &encoded);
    }
    Ok(url)
}

/// Encodes one segment of a path.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(list: &[(&str, Option<&str>, &[&str])]) -> EndpointParams {
        let param = |(name, default, allowed): &(&str, Option<&str>, &[&str])| {
            let allowed = allowed.iter().map(|value| (*value).to_owned()).collect();
            ((*name).to_owned(), EndpointParam { default: default.map(str::to_owned), allowed })
        };
        list.iter().map(param).collect()
    }

    fn rendered(template: &str, own: &EndpointParams, values: &[(&str, &str)]) -> Result<String, &'static str> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        render(template, own, &values)
    }

    const REALM: &str = "https://sso.example/realms/{realm}/token";

    #[test]
    fn a_value_stays_in_its_segment() {
        let own = params(&[("realm", Some("app"), &[])]);
        check(REALM, &own).unwrap();
        for (value, expected) in [
            ("tenant-b", "https://sso.example/realms/tenant-b/token"),
            ("my realm", "https://sso.example/realms/my%20realm/token"),
            ("a/b", "https://sso.example/realms/a%2Fb/token"),
            ("a?b#c", "https://sso.example/realms/a%3Fb%23c/token"),
            ("{realm}", "https://sso.example/realms/%7Brealm%7D/token"),
            ("ä", "https://sso.example/realms/%C3%A4/token"),
        ] {
            assert_eq!(rendered(REALM, &own, &[("realm", value)]).unwrap(), expected);
        }
        assert_eq!(rendered(REALM, &own, &[]).unwrap(), "https://sso.example/realms/app/token");
        for value in ["", ".", "..", "..."] {
            assert!(rendered(REALM, &own, &[("realm", value)]).is_err(), "{value:?}");
        }
        assert!(rendered(REALM, &params(&[("realm", None, &[])]), &[]).unwrap_err().contains("one more"));
    }

    #[test]
    fn a_value_never_chooses_whose_host_it_is() {
        let shop = "https://{shop}.shops.example/token";
        let own = params(&[("shop", None, &[])]);
        check(shop, &own).unwrap();
        assert_eq!(rendered(shop, &own, &[("shop", "acme-1")]).unwrap(), "https://acme-1.shops.example/token");
        for value in ["evil.example/", "evil.example#", "a.b", "a:1", "a@b", "", "a/b", "%2e"] {
            assert!(rendered(shop, &own, &[("shop", value)]).is_err(), "{value:?}");
        }
        let region = "https://accounts.zoho.{dc}/oauth/v2/token";
        for template in [region, "https://{dc}/token", "https://{dc}.example/token", "https://{dc}:8443/token"] {
            assert!(check(template, &params(&[("dc", Some("com"), &[])])).unwrap_err().contains("allowed_params"));
        }
        let own = params(&[("dc", Some("com"), &["com", "eu", "com.au"])]);
        check(region, &own).unwrap();
        assert_eq!(rendered(region, &own, &[("dc", "com.au")]).unwrap(), "https://accounts.zoho.com.au/oauth/v2/token");
        assert!(rendered(region, &own, &[("dc", "evil.example")]).unwrap_err().contains("not among"));
    }

    #[test]
    fn braces_enclose_names() {
        assert_eq!(names("https://a/{b}/{c_1}").unwrap(), ["b", "c_1"]);
        for wrong in ["https://a/{", "https://a/}", "https://a/{}", "https://a/{B}", "https://a/{b", "https://a/}b{"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
        assert!(check("https://a.example/{b}", &EndpointParams::new()).unwrap_err().contains("not declared"));
    }
}
