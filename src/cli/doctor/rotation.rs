//! What `doctor` says about the keys that are in use.

use token_supervisor::api::{KeyUseBody, KeysBody};

use super::{CheckFinding, CheckVerdict, finding};

/// Reports keys that are missing, retired keys that something needs, and replicas whose keys differ.
pub(super) fn keys_in_use(keys: &KeysBody) -> Vec<CheckFinding> {
    let active = keys.items.iter().find(|key| key.state == "active").map(|key| key.id.as_str());
    let replicas = keys.replicas.iter().filter_map(|replica| {
        let missing = keys.items.iter().filter(|key| key.state != "missing" && !replica.has(&key.id));
        let missing: Vec<_> = missing.map(|key| key.id.as_str()).collect();
        let text = match (missing.as_slice(), replica.seals_with()) {
            ([], Some(other)) if Some(other) != active => format!("encrypts with key {other}"),
            ([], _) => return None,
            (missing, _) => format!("lacks key {}", missing.join(", ")),
        };
        let next = "next: copy the key file there";
        Some(finding("keys", CheckVerdict::Warning, format!("{} {text}; {next}", replica.id)))
    });
    keys.items.iter().filter_map(of_key).chain(replicas).collect()
}

fn of_key(key: &KeyUseBody) -> Option<CheckFinding> {
    let need = key.need();
    if !need.is_any() {
        return None;
    }
    let by = need.in_words();
    match &*key.state {
        "missing" => {
            let text =
                format!("key {} is needed by {by}, and missing; next: restore the key file from its backup", key.id);
            Some(finding("keys", CheckVerdict::Wrong, text))
        }
        "retired" => {
            let text = format!("the retired key {} is needed by {by}; next: token-supervisor keys reseal", key.id);
            Some(finding("keys", CheckVerdict::Warning, text))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_retired_keys_that_are_needed_and_replicas_that_differ_are_found() {
        let keys: KeysBody = serde_json::from_str(
            r#"{"items":[
                {"id":"new","state":"active","since":null,"rows":5,"revocations":0,"journal":0,"check":true},
                {"id":"old","state":"retired","since":null,"rows":12,"revocations":1,"journal":0,"check":false},
                {"id":"idle","state":"retired","since":null,"rows":0,"revocations":0,"journal":0,"check":false},
                {"id":"gone","state":"missing","since":null,"rows":1,"revocations":0,"journal":0,"check":false}],
            "replicas":[
                {"id":"r_1","version":"","journal":"","last_seen":0,"stopping":false,"this":false,"keys":[{"id":"new","state":"active"},{"id":"old","state":"retired"},{"id":"idle","state":"retired"}]},
                {"id":"r_2","version":"","journal":"","last_seen":0,"stopping":false,"this":false,"keys":[{"id":"new","state":"staged"},{"id":"old","state":"active"},{"id":"idle","state":"retired"}]},
                {"id":"r_3","version":"","journal":"","last_seen":0,"stopping":false,"this":false,"keys":[{"id":"old","state":"active"}]}]}"#,
        )
        .unwrap();
        let found: Vec<_> = keys_in_use(&keys).into_iter().map(|found| (found.verdict, found.text)).collect();
        let expected = [
            (
                CheckVerdict::Warning,
                "the retired key old is needed by 12 grants and 1 queued revocation; next: token-supervisor keys reseal",
            ),
            (
                CheckVerdict::Wrong,
                "key gone is needed by 1 grant, and missing; next: restore the key file from its backup",
            ),
            (CheckVerdict::Warning, "r_2 encrypts with key old; next: copy the key file there"),
            (CheckVerdict::Warning, "r_3 lacks key new, idle; next: copy the key file there"),
        ];
        assert_eq!(found, expected.map(|(verdict, text)| (verdict, text.to_owned())));
    }
}
