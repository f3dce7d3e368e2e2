//! A house with a real server over a fake world.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use systemprompt::server::store::Store;
use systemprompt::server::world::World;

use crate::cli::browser::Browser;
use crate::cli::house::PATIENCE;
pub(crate) use crate::cli::house::{House, Said, finish, finish_within, said};
use crate::cli::proxy::Balancer;
use crate::ports::free_port;
use crate::store::postgres::{Cluster, all_tables};

/// A real server over a fake world, and somebody who is signed in to it.
pub(crate) struct Server {
    data: tempfile::TempDir,
    /// Where the data is, if not there.
    elsewhere: Option<PathBuf>,
    /// Where the server is talked to: the first one, or what spreads over all of them.
    pub(crate) port: u16,
    /// Where the servers themselves listen.
    pub(crate) ports: Vec<u16>,
    children: Vec<Option<Child>>,
    shared: Option<Shared>,
    sign_in_link: String,
    pub(crate) house: House,
}

/// What several servers have in common.
struct Shared {
    _balancer: Balancer,
    /// Kept until the servers are gone.
    cluster: Option<Cluster>,
}

impl Server {
    /// Starts a server; the house is signed in by an API token.
    pub(crate) fn start() -> Self {
        let mut server = Self::start_unsigned();
        server.sign_in();
        server
    }

    /// From now on the house is signed in by an API token.
    pub(crate) fn sign_in(&mut self) {
        let token = self.token();
        self.house.set("SYSTEMPROMPT_TOKEN", &token);
    }

    /// Starts a server; nobody is signed in. `TEST_DATABASE=postgres` makes it two over one PostgreSQL, behind a proxy
    /// that gives every connection to the next one.
    #[expect(
        clippy::disallowed_methods,
        reason = "the test environment is no setting of the program"
    )]
    pub(crate) fn start_unsigned() -> Self {
        if std::env::var("TEST_DATABASE").is_ok_and(|kind| kind == "postgres") {
            let cluster = Cluster::find_or_start().expect("PostgreSQL");
            let url = cluster.new_database_now();
            return Self::replicas(&url, Some(cluster));
        }
        Self::alone()
    }

    /// One server with its database in a file.
    pub(crate) fn alone() -> Self {
        let mut server = Self::down();
        server.up();
        server
    }

    /// With its data in a folder below this one.
    pub(crate) fn start_in(folder: &Path) -> Self {
        let port = free_port();
        let mut server = Self::with_ports(port, vec![port]);
        server.elsewhere = Some(folder.join("data"));
        server.up();
        let token = server.token();
        server.house.set("SYSTEMPROMPT_TOKEN", &token);
        server
    }

    /// The id of the process of one of the servers.
    pub(crate) fn process(&self, index: usize) -> u32 {
        self.children[index].as_ref().expect("it runs").id()
    }

    /// One that does not run yet.
    pub(crate) fn down() -> Self {
        let port = free_port();
        Self::with_ports(port, vec![port])
    }

    /// Two servers over the database, behind a proxy that gives every connection to the next one.
    pub(crate) fn replicas(url: &str, cluster: Option<Cluster>) -> Self {
        let ports = vec![free_port(), free_port()];
        let balancer = Balancer::new(ports.clone());
        let mut server = Self::with_ports(balancer.port, ports);
        server.house.set("SYSTEMPROMPT_DATABASE_URL", url);
        let public = format!("http://127.0.0.1:{}", balancer.port);
        server.house.set("SYSTEMPROMPT_PUBLIC_URL", &public);
        server.shared = Some(Shared {
            _balancer: balancer,
            cluster,
        });
        server.up();
        server
    }

    /// The PostgreSQL that was started for them.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.shared.as_ref()?.cluster.as_ref()
    }

    fn with_ports(port: u16, ports: Vec<u16>) -> Self {
        Self {
            data: tempfile::tempdir().expect("a folder"),
            elsewhere: None,
            port,
            children: ports.iter().map(|_| None).collect(),
            ports,
            shared: None,
            sign_in_link: String::new(),
            house: House::new().with("SYSTEMPROMPT_API_URL", &format!("http://127.0.0.1:{port}")),
        }
    }

    /// The same, and it dies where it is told to.
    pub(crate) fn start_watched() -> Self {
        let port = free_port();
        let mut server = Self::with_ports(port, vec![port]);
        server.watch();
        server.up();
        let token = server.token();
        server.house.set("SYSTEMPROMPT_TOKEN", &token);
        server
    }

    /// Servers that are started from now on do what the tests tell them.
    pub(crate) fn watch(&mut self) {
        let folder = self.data.path().join("failpoints");
        std::fs::create_dir(&folder).expect("a folder");
        let folder = folder.display().to_string();
        self.house.set("SYSTEMPROMPT_FAILPOINTS", &folder);
    }

    fn failpoints(&self, name: &str) -> PathBuf {
        self.data.path().join("failpoints").join(name)
    }

    /// It dies when it passes this place the next time.
    pub(crate) fn arm(&self, place: &str) {
        let _ = std::fs::remove_file(self.failpoints("fired"));
        self.tell("armed", place);
    }

    /// What the servers find in this file from now on.
    pub(crate) fn tell(&self, name: &str, text: &str) {
        // Written elsewhere first: it must not be read by halves.
        let mut file = std::fs::File::create(self.failpoints("telling")).expect("a file");
        file.write_all(text.as_bytes()).expect("writes");
        std::fs::rename(self.failpoints("telling"), self.failpoints(name)).expect("renames");
    }

    /// Whether it has passed the place that it was armed for.
    pub(crate) fn has_fired(&self) -> bool {
        self.failpoints("fired").exists()
    }

    /// Every place that was passed, in order.
    pub(crate) fn passed(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.failpoints("passed")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Forgets what was passed.
    pub(crate) fn forget_passed(&self) {
        let _ = std::fs::remove_file(self.failpoints("passed"));
    }

    /// Whether the process has ended.
    pub(crate) fn is_dead(&mut self) -> bool {
        self.children.iter_mut().all(|child| match child {
            Some(child) => child.try_wait().expect("the server").is_some(),
            None => true,
        })
    }

    /// The token with which the house is signed in.
    pub(crate) fn token_of_house(&self) -> String {
        let token = self.house.variable("SYSTEMPROMPT_TOKEN");
        token.unwrap_or_default().to_owned()
    }

    /// The operator's account.
    pub(crate) const EMAIL: &'static str = "operator@example.com";

    pub(crate) fn data_dir(&self) -> String {
        let usual = self.data.path().join("data");
        self.elsewhere.as_ref().unwrap_or(&usual).display().to_string()
    }

    /// Starts what does not run and waits until it listens.
    pub(crate) fn up(&mut self) {
        for index in 0..self.ports.len() {
            if self.children[index].is_none() {
                self.up_one(index, &[]);
            }
        }
    }

    /// Starts one of the servers with more arguments.
    pub(crate) fn up_one(&mut self, index: usize, more: &[&str]) {
        let first = self.try_up(index, more);
        assert!(first.contains("\"listening\""), "{first}{}", self.log_of(index));
        let document: serde_json::Value = serde_json::from_str(&first).expect("JSON");
        if let Some(link) = document["sign_in_link"].as_str() {
            self.sign_in_link = link.to_owned();
        }
    }

    /// The same for one that may die before it listens; answers what it said then.
    pub(crate) fn try_up(&mut self, index: usize, more: &[&str]) -> String {
        let listen = format!("127.0.0.1:{}", self.ports[index]);
        let data = self.data_dir();
        let mut arguments = vec![
            "serve",
            "--json",
            "--provider",
            "fake",
            "--listen",
            &listen,
            "--admin-email",
            Self::EMAIL,
            "--log-format",
            "json",
        ];
        if !more.contains(&"--data-dir") {
            arguments.extend_from_slice(&["--data-dir", &data]);
        }
        arguments.extend_from_slice(more);
        let log = std::fs::File::create(self.log_file(index)).expect("a file");
        let mut command = self.house.command(&arguments);
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the server starts");
        let mut first = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut first).expect("a line");
        self.children[index] = Some(child);
        first
    }

    /// Ends the process without a warning, as a crash does.
    pub(crate) fn kill(&mut self) {
        for index in 0..self.children.len() {
            self.kill_one(index);
        }
    }

    /// Ends one of the servers so.
    pub(crate) fn kill_one(&mut self, index: usize) {
        if let Some(mut child) = self.children[index].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to stop, as a service manager does; answers how it ended.
    pub(crate) fn stop(&mut self) -> Said {
        let running: Vec<Child> = self.children.iter_mut().filter_map(Option::take).collect();
        for child in &running {
            let ask = format!("kill -TERM {}", child.id());
            said(self.house.script(&ask).output().expect("bash runs")).ok();
        }
        let ends: Vec<Said> = running.into_iter().map(ended).collect();
        ends.into_iter().max_by_key(|said| said.code).expect("it runs")
    }

    /// The same, and answers how long it took; it must end well.
    pub(crate) fn stop_well(&mut self) -> Duration {
        let began = Instant::now();
        let code = self.stop().code;
        assert_eq!(code, Some(0), "{}", self.log());
        began.elapsed()
    }

    pub(crate) fn log(&self) -> String {
        let logs: Vec<String> = (0..self.ports.len()).map(|index| self.log_of(index)).collect();
        logs.concat()
    }

    pub(crate) fn log_of(&self, index: usize) -> String {
        std::fs::read_to_string(self.log_file(index)).unwrap_or_default()
    }

    fn log_file(&self, index: usize) -> PathBuf {
        self.data.path().join(format!("log-{index}"))
    }

    /// A browser in which the operator is signed in; the link works once.
    pub(crate) fn browser(&self) -> Browser {
        Browser::sign_in(self.port, &self.sign_in_link)
    }

    /// A new API token that may do everything.
    pub(crate) fn token(&self) -> String {
        let data = self.data_dir();
        let arguments = [
            "server",
            "token",
            "create",
            "--account",
            Self::EMAIL,
            "--scope",
            "read,deploy,secrets,admin",
            "--expires-in",
            "1d",
            "--quiet",
            "--data-dir",
            &data,
        ];
        self.house.run(&arguments).ok().stdout.trim().to_owned()
    }

    /// The tables themselves.
    pub(crate) async fn store(&self) -> Store {
        let url = self.house.variable("SYSTEMPROMPT_DATABASE_URL");
        let opened = match url {
            Some(url) => Store::open_postgres(url).await,
            None => Store::open_sqlite(&Path::new(&self.data_dir()).join("systemprompt.db")).await,
        };
        opened.expect("opened")
    }

    /// Whatever is kept, with its name: the database's files or the tables of PostgreSQL, and the fake world.
    pub(crate) fn everything_kept(&self) -> Vec<(&'static str, Vec<u8>)> {
        let data = self.data_dir();
        let read = |name: &'static str| {
            let bytes = std::fs::read(Path::new(&data).join(name));
            (name, bytes.unwrap_or_else(|error| panic!("{name}: {error}")))
        };
        let mut kept = vec![read("world.json")];
        match self.house.variable("SYSTEMPROMPT_DATABASE_URL") {
            Some(url) => kept.push(("PostgreSQL", all_tables(url).into_bytes())),
            None => kept.extend(["systemprompt.db", "systemprompt.db-wal"].map(read)),
        }
        kept
    }

    /// The fake world, to plan faults in.
    pub(crate) fn world(&self) -> World {
        World::open(&Path::new(&self.data_dir()).join("world.json")).expect("the fake world")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.house.run(arguments)
    }

    /// Another server on the same data, which is expected not to stay.
    pub(crate) fn serve_once(&self) -> Said {
        let data = self.data_dir();
        self.run(&[
            "serve",
            "--provider",
            "fake",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &data,
        ])
    }

    /// From now on commands talk to this port: that of a proxy, or the server's own.
    pub(crate) fn talk_to(&mut self, port: u16) {
        self.house
            .set("SYSTEMPROMPT_API_URL", &format!("http://127.0.0.1:{port}"));
    }

    /// Creates a tenant.
    pub(crate) fn tenant(&self, name: &str) -> Said {
        self.run(&["tenant", "create", name, "--plan", "free", "--yes"])
            .ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // What the server said is most often why.
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            let _ = writeln!(
                std::io::stderr(),
                "{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// Waits for the server, whose outputs are read elsewhere, but not for ever.
fn ended(mut child: Child) -> Said {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child") {
            return Said {
                stdout: String::new(),
                stderr: String::new(),
                code: status.code(),
            };
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the server did not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
