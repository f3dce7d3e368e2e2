//! Parts that our containers have in common.

use std::collections::HashMap;

use bollard::models::{HostConfigLogConfig, Mount, MountType, RestartPolicy, RestartPolicyNameEnum};

/// Three files of 10 MB, kept by the engine: nothing that a container prints fills the disk.
#[must_use]
pub fn rotated_logs() -> HostConfigLogConfig {
    let options = [("max-size", "10m"), ("max-file", "3")];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from(
            options.map(|(name, value)| (name.to_owned(), value.to_owned())),
        )),
    }
}

/// A named volume at `target`. What the image has there is copied into it while it is empty.
#[must_use]
pub fn volume_at(volume: &str, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        ..Mount::default()
    }
}

/// Whether a container that ended, or whose engine was started again, starts again by itself.
#[must_use]
pub fn restarts(always: bool) -> RestartPolicy {
    RestartPolicy {
        name: Some(if always {
            RestartPolicyNameEnum::UNLESS_STOPPED
        } else {
            RestartPolicyNameEnum::NO
        }),
        maximum_retry_count: None,
    }
}

/// Texts as the engine's interface wants them.
#[must_use]
pub fn texts(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}
