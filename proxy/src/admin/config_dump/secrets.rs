//! The dump of secrets, and what of any dump nobody is to see.

use serde_json::{Value, json};

use super::{Names, dump as dump_of, entry, message, timestamp};
use crate::admin::pages::AdminContext;
use crate::snapshot::DynamicSecret;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// Secrets of the bootstrap, and those of SDS, with and without an answer.
pub(super) fn dump(cx: &AdminContext<'_>, names: &Names) -> Value {
    let fixed = cx.snapshot.static_secrets();
    let fixed = fixed.filter(|(name, _)| names.show(name));
    let fixed: Vec<Value> = fixed
        .map(|(name, bytes)| json!({ "name": &**name, "secret": message(SECRET, bytes) }))
        .collect();
    let (mut active, mut warming) = (Vec::new(), Vec::new());
    for secret in cx.snapshot.dynamic_secrets() {
        if !names.show(&secret.name) {
            continue;
        }
        match shown(secret) {
            Some(value) => active.push(value),
            None => warming.push(json!({
                "name": &*secret.name,
                "version_info": "uninitialized",
                "last_updated": timestamp(secret.asked),
                "secret": { "@type": SECRET, "name": &*secret.name },
            })),
        }
    }
    dump_of(
        "SecretsConfigDump",
        vec![
            ("static_secrets", fixed.into()),
            ("dynamic_active_secrets", active.into()),
            ("dynamic_warming_secrets", warming.into()),
        ],
    )
}

fn shown(secret: &DynamicSecret) -> Option<Value> {
    let mut value = json!({ "name": &*secret.name });
    let rest = entry("secret", SECRET, secret.received.as_ref()?);
    if let (Some(value), Value::Object(rest)) = (value.as_object_mut(), rest) {
        value.extend(rest);
    }
    Some(value)
}

/// Hides what Envoy's messages mark as sensitive: keys and passwords, wherever they come from.
pub(super) fn redact(value: &mut Value) {
    redact_within("", value);
}

fn redact_within(parent: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let sensitive = matches!(
                    (parent, key.as_str()),
                    (_, "private_key" | "pkcs12" | "password")
                        | ("session_ticket_keys", "keys")
                        | ("generic_secret", "secret" | "secrets")
                );
                match sensitive {
                    true => hide(value),
                    false => redact_within(key, value),
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                redact_within(parent, value);
            }
        }
        _ => {}
    }
}

/// Hides what a data source holds.
fn hide(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), &value) {
                    ("inline_bytes", Value::String(_)) => *value = "W3JlZGFjdGVkXQ==".into(),
                    (_, Value::String(_)) => *value = "[redacted]".into(),
                    _ => hide(value),
                }
            }
        }
        Value::String(_) => *value = "[redacted]".into(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_passwords_are_hidden() {
        let mut value = json!({
            "tls_certificate": {
                "certificate_chain": { "filename": "c" },
                "private_key": { "inline_bytes": "a2V5" },
                "password": { "inline_string": "p" },
            },
            "session_ticket_keys": { "keys": [{ "filename": "k" }] },
            "other": { "keys": [{ "filename": "k" }] },
            "generic_secret": { "secret": { "environment_variable": "E" } },
        });
        redact(&mut value);
        let expected = json!({
            "tls_certificate": {
                "certificate_chain": { "filename": "c" },
                "private_key": { "inline_bytes": "W3JlZGFjdGVkXQ==" },
                "password": { "inline_string": "[redacted]" },
            },
            "session_ticket_keys": { "keys": [{ "filename": "[redacted]" }] },
            "other": { "keys": [{ "filename": "k" }] },
            "generic_secret": { "secret": { "environment_variable": "[redacted]" } },
        });
        assert_eq!(value, expected);
    }
}
