//! What a command touches when it starts: the system's loader, and what it is asked about. strace says so.

use std::process::Command;

use crate::cli::house::{House, PROGRAM};

/// What every program of this machine opens before its first line.
const LOADER: [&str; 4] = ["/etc/ld.so", "/lib/", "/usr/lib/", "/lib64/"];
/// What the standard library asks about the stack and the processors.
const SYSTEM: [&str; 3] = ["/proc/self/", "/sys/fs/cgroup/", "/sys/devices/system/cpu/"];

/// Every name that a command gave to the system, and every socket that it made.
fn touched(house: &House, arguments: &[&str]) -> Vec<String> {
    let file = house.path("strace.txt");
    let plain = house.command(arguments);
    let mut traced = Command::new("strace");
    traced
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=%file,socket,connect",
            "-e",
            "signal=none",
            "-o",
        ])
        .arg(&file)
        .arg(PROGRAM)
        .args(arguments)
        .current_dir(house.project())
        .env_clear();
    let given = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let output = traced
        .envs(given)
        .output()
        .expect("strace runs; `scripts/setup --for-tests` installs it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(&file).expect("the trace");
    std::fs::remove_file(file).expect("removed");
    text.lines().filter_map(named).collect()
}

/// The name in a call, or the whole call where it is about a socket.
fn named(line: &str) -> Option<String> {
    let (_, call) = line.split_once(' ')?;
    let call = call.trim_start();
    if call.starts_with("socket(") || call.starts_with("connect(") {
        return Some(call.to_owned());
    }
    if call.starts_with("execve(") {
        return None;
    }
    let name = call.split('"').nth(1).filter(|name| !name.is_empty())?;
    let is_any = |of: &[&str]| of.iter().any(|beginning| name.starts_with(beginning));
    (!is_any(&LOADER) && !is_any(&SYSTEM)).then(|| name.to_owned())
}

#[test]
fn a_command_touches_what_it_is_about_and_nothing_else() {
    let house = House::new();
    assert_eq!(touched(&house, &["--version"]), [""; 0]);
    assert_eq!(touched(&house, &["--help"]), [""; 0]);
    let listed = touched(&house, &["tenant", "list", "--local", "--json"]);
    let own = house.project();
    let own = own.to_string_lossy();
    assert!(
        listed.iter().any(|name| name.ends_with("/tenants.json")),
        "{listed:?}"
    );
    assert!(listed.iter().all(|name| name.starts_with(&*own)), "{listed:?}");
}
