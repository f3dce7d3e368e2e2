//! Whether a container that is there is the one that is wanted.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::server::containers::container::ContainerSpec;

/// Tells two specs apart, whoever asked for them: everything but the labels goes in, in one order.
pub(super) fn fingerprint(spec: &ContainerSpec) -> String {
    let parts = serde_json::json!({ "body": spec.body, "networks": spec.networks, "files": spec.files });
    let mut text = String::new();
    write_sorted(&parts, &mut text);
    hex::encode(Sha256::digest(text.as_bytes()))
        .chars()
        .take(32)
        .collect()
}

fn write_sorted(value: &serde_json::Value, text: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            text.push('{');
            for (name, value) in sorted {
                text.push_str(&serde_json::Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
                text.push(',');
            }
            text.push('}');
        }
        serde_json::Value::Array(items) => {
            text.push('[');
            for item in items {
                write_sorted(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}
