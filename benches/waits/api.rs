//! The API under load: one tenant, a page of tenants, a line of a history, with few and with many tenants.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::load::{Kept, wrk};
use crate::harness::run::{floor, version};
use crate::harness::seed::{Database, accounts, tenants};
use crate::harness::served::{Folder, Postgres, Served};
use crate::waits::append;

pub(crate) const AGAINST_BARE: f64 = 0.7;
pub(crate) const P99_AGAINST_BARE: f64 = 1.5;
/// A million costs at most 1.2 of a thousand.
pub(crate) const AGAINST_FEW: f64 = 1.0 / 1.2;
const OWNERS: usize = 10;
/// As many as it takes to ask for minutes without being told to wait: every token may ask 3000 times a minute.
const TOKENS: usize = 400;
const CONNECTIONS: u32 = 32;
const BARE: &str = "bare axum + sqlx";

/// Both databases, three sizes.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    if version("wrk").is_none() {
        return Err("wrk is not installed: apt-get install wrk".into());
    }
    let mut all = sqlite(scale)?;
    match Postgres::start()? {
        Some(server) => all.extend(postgres(&server, scale)?),
        None => report_skipped(),
    }
    Ok(all)
}

fn report_skipped() {
    println!("  skipped PostgreSQL: it is not installed (apt-get install postgresql)");
}

fn sizes(scale: Scale) -> Vec<usize> {
    if scale.quick {
        vec![1_000, 20_000]
    } else {
        vec![1_000, 100_000, 1_000_000]
    }
}

fn sqlite(scale: Scale) -> Outcome<Vec<Measured>> {
    let folder = Folder::new()?;
    let mut databases = Vec::new();
    for size in sizes(scale) {
        let data = folder.path().join(size.to_string());
        fs::create_dir_all(&data)?;
        databases.push((size, Database::in_folder(&data), data));
    }
    on("SQLite", scale, &databases)
}

fn postgres(server: &Postgres, scale: Scale) -> Outcome<Vec<Measured>> {
    let folder = Folder::new()?;
    let mut databases = Vec::new();
    for size in sizes(scale) {
        let data = folder.path().join(size.to_string());
        fs::create_dir_all(&data)?;
        let url = server.database(&format!("tenants_{size}"))?;
        databases.push((size, Database::Postgres(url), data));
    }
    on("PostgreSQL", scale, &databases)
}

/// One that is measured: ours or the floor, over one size.
struct Runner {
    role: Role,
    name: String,
    served: Served,
    script: PathBuf,
    p99: Kept,
}

fn on(engine: &str, scale: Scale, databases: &[(usize, Database, PathBuf)]) -> Outcome<Vec<Measured>> {
    for (size, database, data) in databases {
        database.prepare(data)?;
        database.run(
            &[
                accounts(OWNERS, TOKENS, "read"),
                tenants(*size, OWNERS, "pending"),
            ]
            .concat(),
        )?;
    }
    let mut all = Vec::new();
    for asked in [Asked::One, Asked::FirstPage, Asked::AnyPage] {
        all.extend(contests(engine, asked, scale, databases)?);
    }
    let grown: Vec<_> = databases
        .iter()
        .map(|(size, database, _)| (*size, database))
        .collect();
    all.extend(append::bench(engine, scale, &grown)?);
    Ok(all)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    One,
    FirstPage,
    AnyPage,
}

impl Asked {
    const fn spelled(self) -> &'static str {
        match self {
            Self::One => "get one of",
            Self::FirstPage => "a page of 50 of",
            Self::AnyPage => "a page of 50 from anywhere in",
        }
    }

    /// The path, in Lua.
    const fn path(self) -> &'static str {
        match self {
            Self::One => {
                "string.format('/api/v1/tenants/ten_%026d', math.random(1, EACH - 1) * OWNERS + owner)"
            }
            Self::FirstPage => "'/api/v1/tenants'",
            Self::AnyPage => {
                "'/api/v1/tenants?cursor=' .. base64(string.format('ten_%026d', math.random(0, (EACH - 51) * OWNERS)))"
            }
        }
    }
}

fn contests(
    engine: &str,
    asked: Asked,
    scale: Scale,
    databases: &[(usize, Database, PathBuf)],
) -> Outcome<Vec<Measured>> {
    let mut runners = Vec::new();
    let last = databases.len() - 1;
    for (place, (size, database, data)) in databases.iter().enumerate() {
        let script = data.join("asked.lua");
        fs::write(&script, lua(asked, *size))?;
        let role = if place == last { Role::Ours } else { Role::Beside };
        runners.push(Runner {
            role,
            name: format!("systemprompt, {} tenants", spelled(*size)),
            served: database.serve(data, &[])?,
            script: script.clone(),
            p99: Kept::default(),
        });
        if place == last {
            let mut command = Command::new(floor("api")?);
            command.arg(database.url());
            let floor = data.join("floor");
            fs::create_dir_all(&floor)?;
            runners.push(Runner {
                role: Role::Floor,
                name: BARE.to_owned(),
                served: Served::start(command, &floor)?,
                script,
                p99: Kept::default(),
            });
        }
    }
    let (what, most) = (asked.spelled(), spelled(databases[last].0));
    let few = format!("systemprompt, {} tenants", spelled(databases[0].0));
    let (rounds, seconds) = if scale.quick { (2, 1) } else { (5, 2) };
    let mut contest = Contest::new(format!("API, {engine}: {what} {most} tenants"), Unit::PerSecond);
    for runner in &runners {
        contest = contest.with(runner.role, runner.name.clone(), move || {
            let load = wrk(&runner.served.url, &runner.script, (CONNECTIONS, seconds))?;
            runner.p99.put(load.p99);
            Ok(load.per_second)
        });
    }
    let throughput = contest
        .goal(BARE, AGAINST_BARE)
        .goal(few, AGAINST_FEW)
        .note(format!(
            "{CONNECTIONS} connections; both look the token up, then ask for what is wanted."
        ))
        .run(rounds)?;
    let mut contest = Contest::new(
        format!("API, {engine}: {what} {most} tenants, the slowest of a hundred"),
        Unit::Seconds,
    );
    for runner in &runners {
        contest = contest.with(runner.role, runner.name.clone(), || runner.p99.take());
    }
    let slowest = contest.goal(BARE, P99_AGAINST_BARE).run(rounds)?;
    Ok(vec![throughput, slowest])
}

pub(crate) fn spelled(size: usize) -> String {
    match size {
        1_000_000 => "1,000,000".to_owned(),
        size => format!("{},000", size / 1000),
    }
}

/// A cursor is base64url of the last id, whose 30 characters need no padding.
const BASE64: &str = "
local letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
local function base64(text)
  return (text:gsub('...', function(three)
    local a, b, c = three:byte(1, 3)
    local bits = a * 65536 + b * 256 + c
    local out = ''
    for place = 3, 0, -1 do
      local index = math.floor(bits / 64 ^ place) % 64
      out = out .. letters:sub(index + 1, index + 1)
    end
    return out
  end))
end
";

/// Every request is of another token, and for some of its own tenants.
fn lua(asked: Asked, size: usize) -> String {
    let path = asked.path();
    format!(
        "local TOKENS, OWNERS, EACH = {TOKENS}, {OWNERS}, {}\n\
         math.randomseed(os.time())\n\
         {BASE64}\n\
         function request()\n  \
           local token = math.random(1, TOKENS)\n  \
           local owner = (token - 1) % OWNERS\n  \
           local path = {path}\n  \
           return wrk.format('GET', path, {{ ['Authorization'] = string.format('Bearer spt_%043d', token) }})\n\
         end\n",
        size / OWNERS
    )
}
