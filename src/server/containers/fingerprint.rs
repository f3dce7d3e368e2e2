//! What a container is made of, as one short text.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::server::containers::ContainerSpec;

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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use bollard::models::{ContainerCreateBody, HostConfig};

    use super::fingerprint;
    use crate::server::containers::{ContainerSpec, Labels};

    fn spec(image: &str) -> ContainerSpec {
        let tmpfs = ["/a", "/b", "/c", "/d", "/e"].map(|path| (path.to_owned(), String::new()));
        ContainerSpec {
            name: "sp-x-edge".to_owned(),
            labels: Labels::of_installation("edge"),
            body: ContainerCreateBody {
                image: Some(image.to_owned()),
                host_config: Some(HostConfig {
                    tmpfs: Some(HashMap::from(tmpfs)),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            },
            networks: Vec::new(),
            files: Vec::new(),
            grace: Duration::ZERO,
        }
    }

    #[test]
    fn equal_specs_have_equal_fingerprints_in_whatever_order_their_maps_are() {
        // Every HashMap has its own random order.
        assert_eq!(fingerprint(&spec("a")), fingerprint(&spec("a")));
        assert_ne!(fingerprint(&spec("a")), fingerprint(&spec("b")));
    }
}
