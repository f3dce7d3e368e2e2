//! The vault under test.

use uuid::Uuid;

use super::{KeySource, SecretName, Vault, VaultError};
use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::server::clock::Clock;

const NAME: SecretName<'static> = SecretName {
    scope: "user",
    key: "OPENAI_API_KEY",
    version: 3,
};

fn tenant(number: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(number))
}

#[test]
fn opens_only_under_its_own_name() {
    let directory = tempfile::tempdir().expect("directory");
    let vault = Vault::open(directory.path(), Clock::system()).expect("vault");
    let (mine, other) = (tenant(1), tenant(2));
    let key = vault.new_tenant_key(&mine).expect("key");
    let sealed = vault
        .seal(&mine, &key, NAME, &SecretText::new("sk-1"))
        .expect("sealed");
    assert!(!sealed.contains("sk-1"));
    let opened = vault.unseal(&mine, &key, NAME, &sealed).expect("opened");
    assert_eq!(opened.expose(), "sk-1");
    for name in [
        SecretName { version: 4, ..NAME },
        SecretName { key: "X", ..NAME },
        SecretName {
            scope: "platform",
            ..NAME
        },
    ] {
        assert!(matches!(
            vault.unseal(&mine, &key, name, &sealed),
            Err(VaultError::Unreadable { .. })
        ));
    }
    assert!(vault.unseal(&other, &key, NAME, &sealed).is_err());
}

#[test]
fn equal_values_are_sealed_differently_and_digested_equally() {
    let directory = tempfile::tempdir().expect("directory");
    let vault = Vault::open(directory.path(), Clock::system()).expect("vault");
    let (mine, other) = (tenant(1), tenant(2));
    let (key, other_key) = (
        vault.new_tenant_key(&mine).expect("key"),
        vault.new_tenant_key(&other).expect("key"),
    );
    let value = SecretText::new("the same");
    let seal = || vault.seal(&mine, &key, NAME, &value).expect("sealed");
    assert_ne!(seal(), seal());
    let digest = vault.digest(&mine, &key, &value).expect("digest");
    assert_eq!(digest.len(), 12);
    assert_eq!(digest, vault.digest(&mine, &key, &value).expect("digest"));
    assert_ne!(digest, vault.digest(&other, &other_key, &value).expect("digest"));
}

#[test]
fn the_same_folder_opens_again_and_another_key_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let elsewhere = tempfile::tempdir().expect("directory");
    let tenant = tenant(1);
    let key = Vault::open(directory.path(), Clock::system())
        .and_then(|vault| vault.new_tenant_key(&tenant))
        .expect("key");
    let again = Vault::open(directory.path(), Clock::system()).expect("again");
    assert!(again.digest(&tenant, &key, &SecretText::new("x")).is_ok());

    let file = directory.path().join("master.key");
    std::fs::remove_file(&file).expect("removed");
    assert!(matches!(
        Vault::open(directory.path(), Clock::system()),
        Err(VaultError::KeyMissing { .. })
    ));
    Vault::open(elsewhere.path(), Clock::system()).expect("another vault");
    std::fs::copy(elsewhere.path().join("master.key"), &file).expect("copied");
    assert!(matches!(
        Vault::open(directory.path(), Clock::system()),
        Err(VaultError::WrongKey { .. })
    ));
}

#[test]
fn a_rotation_beside_a_running_server_is_taken_up_and_the_old_key_can_go() {
    let directory = tempfile::tempdir().expect("directory");
    let running = Vault::open(directory.path(), Clock::system()).expect("vault");
    let beside = Vault::open(directory.path(), Clock::system()).expect("vault");
    let mine = tenant(1);
    let old = running.new_tenant_key(&mine).expect("key");
    let sealed = running
        .seal(&mine, &old, NAME, &SecretText::new("sk-1"))
        .expect("sealed");
    assert_eq!(beside.add_version().expect("added"), Some(2));
    let new = beside.rewrap(&mine, &old).expect("wrapped");
    assert_eq!((old.master_version, new.master_version), (1, 2));
    for key in [&old, &new] {
        let opened = running.unseal(&mine, key, NAME, &sealed).expect("opened");
        assert_eq!(opened.expose(), "sk-1");
    }
    assert_eq!(running.new_tenant_key(&tenant(2)).expect("key").master_version, 2);
    assert!(beside.forget_old_versions().expect("forgotten"));
    let again = Vault::open(directory.path(), Clock::system()).expect("the canary is of the new key");
    assert_eq!(again.versions(), (2, vec![2]));
    assert!(again.unseal(&mine, &new, NAME, &sealed).is_ok());
    assert!(matches!(
        again.unseal(&mine, &old, NAME, &sealed),
        Err(VaultError::UnknownVersion { version: 1 })
    ));
}

#[test]
fn the_key_comes_from_a_text_or_a_command_too() {
    let one = "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let of = |source| Vault::from_source(source, Clock::system());
    let text = of(KeySource::Text(SecretText::new(one))).expect("a key");
    assert!(text.is_weak());
    let command = of(KeySource::Command(format!("printf %s '{one}'"))).expect("a key");
    let key = text.new_tenant_key(&tenant(1)).expect("key");
    assert!(command.rewrap(&tenant(1), &key).is_ok());
    assert_eq!(command.add_version().expect("nothing to write"), None);
    let short = of(KeySource::Text(SecretText::new("1:c2hvcnQ=")));
    assert!(matches!(short, Err(VaultError::Malformed { .. })));
    for bad in ["false", "true", "printf garbage"] {
        assert!(of(KeySource::Command(bad.to_owned())).is_err(), "{bad}");
    }
}

#[test]
fn one_rotation_at_a_time() {
    let directory = tempfile::tempdir().expect("directory");
    let vault = Vault::open(directory.path(), Clock::system()).expect("vault");
    let held = vault.hold().expect("free");
    assert!(matches!(vault.hold(), Err(VaultError::Rotating)));
    drop(held);
    assert!(vault.hold().is_ok());
}
