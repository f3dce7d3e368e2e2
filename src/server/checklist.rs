//! `systemprompt server check`: the whole security checklist, on the machine where the server's data is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::password;
use crate::server::clock::Clock;
use crate::server::config::{Environment, ServeFlags, Settings};
use crate::server::error::ServerError;
use crate::server::front::tls::{self, Tls};
use crate::server::opening::{existing, master_key};
use crate::server::safety::{Finding, Standing, WELL_KNOWN, is_exposed, of_settings};
use crate::server::store::postgres::Power;
use crate::server::store::{Store, accounts, audit};
use crate::server::vault::KeySource;

/// Ports of databases, caches and their user interfaces.
const DATABASE_PORTS: [(u16, &str); 10] = [
    (5432, "PostgreSQL"),
    (5433, "PostgreSQL"),
    (3306, "MySQL"),
    (6379, "Redis"),
    (27017, "MongoDB"),
    (9200, "Elasticsearch"),
    (11434, "Ollama"),
    (5050, "pgAdmin"),
    (8081, "Adminer"),
    (2375, "the Docker Engine"),
];
/// Ports that a server shows to the world.
const OPEN_PORTS: [u16; 3] = [22, 80, 443];
const FRESH_SECONDS: i64 = 26 * 3600;
const EXPIRES_SOON_SECONDS: i64 = 14 * 24 * 3600;

/// What was checked, in the order of the list.
///
/// # Errors
/// The settings cannot be used, or there is no installation.
pub async fn check(flags: ServeFlags, clock: &Clock) -> Result<Vec<Finding>, ServerError> {
    let shown_password = flags.show_a_password();
    let given = flags.secret_files();
    let settings = Settings::resolve(flags, &Environment::read())?;
    let installation = existing(&settings.data)?;
    let vault = master_key(&installation, &settings.data, clock);
    let weak = vault.as_ref().is_ok_and(|vault| vault.is_weak());
    let public_url = settings.public_url_at(settings.listen);
    let mut findings = of_settings(&settings, &public_url, weak);
    if let Err(error) = vault {
        let what = error.to_string();
        let what = what.lines().next().unwrap_or_default().to_owned();
        findings[0] = Finding::fail("master-key", what, "restore it from your backup");
    }
    if !is_exposed(&settings, settings.listen) {
        findings.push(Finding::judge(
            "environment",
            "`ENVIRONMENT` is not `production`: the server starts however careless it is",
            "set `ENVIRONMENT=production` where others reach it",
        ));
    } else {
        findings.push(Finding::pass(
            "environment",
            "the server refuses to start when careless",
        ));
    }
    findings.push(certificate(&settings, clock.now()));
    findings.push(arguments(shown_password));
    let store = installation.store(settings.data.postgres.as_ref()).await?;
    findings.push(operators(&store).await?);
    findings.push(database_role(&store).await?);
    findings.push(database_password(&settings));
    findings.push(chain(&store).await);
    store.close().await;
    findings.extend(ports(&settings, &listening()));
    findings.push(modes(&settings, given));
    findings.push(backups(&settings.data.directory.join("backups"), clock.now()));
    Ok(findings)
}

fn certificate(settings: &Settings, now: Time) -> Finding {
    const NAME: &str = "certificate";
    let Some(files) = &settings.exposure.tls else {
        return Finding::skip(NAME, "the server does not speak TLS itself");
    };
    let until = Tls::open(files.clone()).and_then(|_| tls::good_until(&files.certificate));
    match until {
        Err(error) => Finding::fail(
            NAME,
            error.to_string(),
            "give a certificate with its own key, as PEM",
        ),
        Ok(Some(until)) if until <= now => {
            Finding::fail(NAME, format!("the certificate has expired ({until})"), "renew it")
        }
        Ok(Some(until)) if until <= now.plus_seconds(EXPIRES_SOON_SECONDS) => Finding::fail(
            NAME,
            format!("the certificate expires soon ({until})"),
            "renew it",
        ),
        Ok(Some(until)) => Finding::pass(NAME, format!("good until {until}")),
        Ok(None) => Finding::judge(
            NAME,
            "it does not say until when it is good",
            "look at it with `openssl x509`",
        ),
    }
}

fn arguments(shown: bool) -> Finding {
    if shown {
        return Finding::fail(
            "arguments",
            "everybody on this machine can read the password among the arguments",
            "give the URL by `SYSTEMPROMPT_DATABASE_URL` or `--database-url-file`",
        );
    }
    Finding::pass("arguments", "no password is among the arguments")
}

async fn operators(store: &Store) -> Result<Finding, ServerError> {
    const NAME: &str = "operators";
    let mut tx = store.begin_read().await?;
    let operators = accounts::list_operators(&mut tx).await?;
    drop(tx);
    for operator in &operators {
        let Some(stored) = operator.password_hash.as_deref() else {
            continue;
        };
        for known in WELL_KNOWN {
            if password::verify(Some(stored), SecretText::new(known)).await {
                return Ok(Finding::fail(
                    NAME,
                    format!("the password of `{}` is one that everybody tries", operator.email),
                    "let it in by `systemprompt server link` and give it another one",
                ));
            }
        }
    }
    Ok(Finding::pass(
        NAME,
        format!(
            "{} operators, none with a password that everybody tries",
            operators.len()
        ),
    ))
}

async fn database_role(store: &Store) -> Result<Finding, ServerError> {
    const NAME: &str = "database-role";
    Ok(match store.power().await? {
        None => Finding::skip(NAME, "the database is a file"),
        Some(Power::Worker) => {
            Finding::pass(NAME, "the server's role works with the tables, and owns nothing")
        }
        Some(Power::Owner) => Finding::judge(
            NAME,
            "the server's role owns the tables: it could change what the audit holds",
            "let the server run with another role than `migrate up`: `systemprompt server migrate roles` makes both",
        ),
        Some(Power::Maker) => Finding::fail(
            NAME,
            "the server's role in PostgreSQL may make roles or databases, replicate, or pass by row security",
            "take that away: `ALTER ROLE … NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS`",
        ),
        Some(Power::Superuser) => Finding::fail(
            NAME,
            "the server's role in PostgreSQL is a superuser",
            "make roles of its own with `systemprompt server migrate roles`, and use one of them in the URL",
        ),
    })
}

fn database_password(settings: &Settings) -> Finding {
    const NAME: &str = "database-password";
    let Some(postgres) = &settings.data.postgres else {
        return Finding::skip(NAME, "the database is a file");
    };
    let url = url::Url::parse(postgres.url.expose()).ok();
    let password = url.as_ref().and_then(url::Url::password);
    match password {
        None => Finding::judge(
            NAME,
            "the URL holds no password",
            "make sure that the server asks for a certificate or a socket's owner",
        ),
        Some(password) if password.len() < 32 => Finding::fail(
            NAME,
            "the password in the URL has fewer than 32 characters",
            "give the role a random one: `openssl rand -base64 32`",
        ),
        Some(_) => Finding::pass(NAME, "at least 32 characters"),
    }
}

async fn chain(store: &Store) -> Finding {
    const NAME: &str = "audit";
    let mut after = 0;
    loop {
        let verdict = match store.begin_read().await {
            Ok(mut tx) => audit::verify(&mut tx, after).await,
            Err(error) => Err(error),
        };
        match verdict {
            Err(error) => {
                return Finding::fail(NAME, error.to_string(), "run `systemprompt server migrate up`");
            }
            Ok(verdict) if !verdict.faults.is_empty() => {
                return Finding::fail(
                    NAME,
                    verdict.faults[0].what.clone(),
                    "see all of it with `systemprompt audit --verify`",
                );
            }
            Ok(verdict) if verdict.finished => {
                return Finding::pass(NAME, format!("{} rows, the chain is whole", verdict.verified_to));
            }
            Ok(verdict) => after = verdict.verified_to,
        }
    }
}

/// Sockets that somebody outside of this machine could connect to.
fn listening() -> Vec<(IpAddr, u16)> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().filter_map(socket).collect::<Vec<_>>())
        .filter(|(address, _)| !address.to_canonical().is_loopback())
        .collect()
}

/// One line of `/proc/net/tcp` or `tcp6`, if the socket listens.
fn socket(line: &str) -> Option<(IpAddr, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let state = words.nth(1)?;
    if state != "0A" {
        return None;
    }
    // Four bytes at a time, each in the order of the machine.
    let word = |text: &str| u32::from_str_radix(text, 16).map(u32::to_le_bytes).ok();
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(address.get(index * 8..index * 8 + 8)?)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn ports(settings: &Settings, listening: &[(IpAddr, u16)]) -> [Finding; 2] {
    let mut databases: Vec<String> = Vec::new();
    let mut others: Vec<u16> = Vec::new();
    let own = [
        settings.listen.port(),
        settings.edge_http_port,
        settings.edge_https_port,
    ];
    for (_, port) in listening {
        if let Some((_, name)) = DATABASE_PORTS.iter().find(|(known, _)| known == port) {
            databases.push(format!("{name} ({port})"));
        } else if !OPEN_PORTS.contains(port) && !own.contains(port) {
            others.push(*port);
        }
    }
    databases.sort();
    databases.dedup();
    others.sort_unstable();
    others.dedup();
    let shown: Vec<String> = others.iter().map(ToString::to_string).collect();
    [
        if databases.is_empty() {
            Finding::pass(
                "database-ports",
                "no database and no database interface listens for others",
            )
        } else {
            Finding::fail(
                "database-ports",
                format!("others can reach {}", databases.join(", ")),
                "let it listen on 127.0.0.1 only",
            )
        },
        if shown.is_empty() {
            Finding::pass("open-ports", "nothing else listens for others")
        } else {
            Finding::judge(
                "open-ports",
                format!("these ports listen for others: {}", shown.join(", ")),
                "let them listen on 127.0.0.1, or close them in the firewall",
            )
        },
    ]
}

fn modes(settings: &Settings, given: Vec<PathBuf>) -> Finding {
    const NAME: &str = "file-modes";
    let data = &settings.data;
    let mut secret: Vec<PathBuf> = vec![data.directory.clone()];
    secret.extend(given);
    // Keys, the database and its log, and whatever else lies beside them; a lock holds nothing.
    let beside = std::fs::read_dir(&data.directory).into_iter().flatten().flatten();
    secret.extend(
        beside
            .map(|entry| entry.path())
            .filter(|path| path.is_file() && path.extension().is_none_or(|kind| kind != "lock")),
    );
    if let Some(KeySource::File(file)) = &data.master_key {
        secret.push(file.clone());
    }
    secret.extend(data.signing_key_file.clone());
    secret.extend(settings.exposure.tls.as_ref().map(|files| files.key.clone()));
    secret.sort();
    secret.dedup();
    let open: Vec<String> = secret
        .iter()
        .filter(|path| std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0))
        .map(|path| path.display().to_string())
        .collect();
    if open.is_empty() {
        return Finding::pass(NAME, "nobody else reads the keys and the database");
    }
    Finding::fail(
        NAME,
        format!("others on this machine can read `{}`", open.join("`, `")),
        format!("run `chmod go= {}`", open.join(" ")),
    )
}

fn backups(folder: &Path, now: Time) -> Finding {
    const NAME: &str = "backups";
    let newest = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().and_then(|file| file.modified()).ok())
        .filter_map(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .filter_map(|at| i64::try_from(at.as_millis()).ok())
        .max();
    let mend = format!(
        "copy the database and both keys elsewhere every day, and leave a copy in `{}`",
        folder.display()
    );
    match newest.map(Time::from_millis) {
        None => Finding::fail(NAME, format!("there is none in `{}`", folder.display()), mend),
        Some(at) if now.seconds_since(at) > FRESH_SECONDS => {
            Finding::fail(NAME, format!("the newest is of {at}"), mend)
        }
        Some(at) => Finding::pass(NAME, format!("the newest is of {at}")),
    }
}

/// How many checks have failed.
#[must_use]
pub fn failures(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|finding| finding.standing == Standing::Fail)
        .count()
}

#[cfg(test)]
mod tests {
    use super::socket;

    #[test]
    fn sockets_are_read_as_the_kernel_writes_them() {
        let line = "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1";
        assert_eq!(socket(line), Some(("127.0.0.1".parse().expect("address"), 5432)));
        let line =
            "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0";
        assert_eq!(socket(line), Some(("::1".parse().expect("address"), 8080)));
        let line =
            "   2: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0";
        assert_eq!(
            socket(line),
            Some(("::ffff:127.0.0.1".parse().expect("address"), 80))
        );
        assert_eq!(socket("   3: 0100007F:1538 0100007F:9999 01 0:0"), None);
        assert_eq!(socket("  sl  local_address rem_address   st tx_queue"), None);
    }
}
