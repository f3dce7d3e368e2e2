//! Constant load on a tenant through the edge, and what came of every request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::journey::place::Door;

const WORKERS: usize = 8;
/// Between two requests of a worker: the machine has other work to do than to answer.
const PAUSE: Duration = Duration::from_millis(8);

/// Requests without end, until `finish`.
pub(crate) struct Load {
    runtime: Runtime,
    workers: JoinSet<Tally>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

/// What came of the requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) count: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) longest: Duration,
    /// The releases that answered.
    pub(crate) releases: BTreeSet<String>,
}

impl Load {
    /// Starts, and waits until every kind of request has been answered.
    pub(crate) fn start(door: &Door) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            let worker = work(door.clone(), number, stop.clone(), answered.clone());
            workers.spawn_on(worker, runtime.handle());
        }
        let load = Self {
            runtime,
            workers,
            stop,
            answered,
        };
        load.wait_for(5 * WORKERS);
        load
    }

    /// So many requests a second, whether those before were answered or not.
    pub(crate) fn steady(door: &Door, per_second: u32) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut workers = JoinSet::new();
        let steadily = send(door.clone(), per_second, stop.clone(), answered.clone());
        workers.spawn_on(steadily, runtime.handle());
        Self {
            runtime,
            workers,
            stop,
            answered,
        }
    }

    /// Waits for so many answers more.
    pub(crate) fn wait_for(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        let began = Instant::now();
        while self.answered.load(Ordering::Relaxed) < wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing answers");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops; answers what came of everything.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        sum(self.runtime.block_on(self.workers.join_all()))
    }
}

fn sum(tallies: Vec<Tally>) -> Tally {
    let mut all = Tally::default();
    for tally in tallies {
        all.count += tally.count;
        all.failures.extend(tally.failures);
        all.longest = all.longest.max(tally.longest);
        all.releases.extend(tally.releases);
    }
    all
}

/// Requests of their own at a steady pace: they pile up while nobody answers.
async fn send(door: Door, per_second: u32, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Tally {
    let client = door.client(true);
    let mut clock = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut requests = JoinSet::new();
    let mut done = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        number += 1;
        requests.spawn(one(client.clone(), door.clone(), number, answered.clone()));
        while let Some(tally) = requests.try_join_next() {
            done.push(tally.expect("a request"));
        }
    }
    done.extend(requests.join_all().await);
    sum(done)
}

async fn one(client: reqwest::Client, door: Door, number: usize, answered: Arc<AtomicUsize>) -> Tally {
    let mut tally = Tally::default();
    ask(&client, &door, number, &mut tally, &answered).await;
    tally
}

/// Every second worker keeps its connection; each takes turns in reading, writing to the database, and sending.
async fn work(door: Door, number: usize, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Tally {
    let client = door.client(number.is_multiple_of(2));
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let turn = tally.count + number;
        ask(&client, &door, turn, &mut tally, &answered).await;
        tokio::time::sleep(PAUSE).await;
    }
    tally
}

/// One request, of the kind whose turn it is.
async fn ask(client: &reqwest::Client, door: &Door, turn: usize, tally: &mut Tally, answered: &AtomicUsize) {
    let began = Instant::now();
    let (what, outcome) = match turn % 3 {
        0 => ("GET /api/v1/site", site(client, door).await),
        1 => ("GET /", page(client, door).await),
        _ => ("POST /", post(client, door).await),
    };
    tally.count += 1;
    tally.longest = tally.longest.max(began.elapsed());
    match outcome {
        Ok(release) => {
            answered.fetch_add(1, Ordering::Relaxed);
            tally.releases.extend(release);
        }
        Err(why) => tally
            .failures
            .push(format!("{what} after {:?}: {why}", began.elapsed())),
    }
}

async fn answer(request: reqwest::RequestBuilder, wanted: u16) -> Result<String, String> {
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status().as_u16();
    let body = answer.text().await.map_err(|error| format!("{error:?}"))?;
    if status == wanted {
        Ok(body)
    } else {
        Err(format!("{status}: {body}"))
    }
}

/// The release that answered; its database must have answered too.
async fn site(client: &reqwest::Client, door: &Door) -> Result<Option<String>, String> {
    let body = answer(client.get(door.url("/api/v1/site")), 200).await?;
    let site: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    if site["visits"]["total"].as_i64().is_none() {
        return Err(format!("the database did not answer: {body}"));
    }
    Ok(site["release"].as_str().map(str::to_owned))
}

async fn page(client: &reqwest::Client, door: &Door) -> Result<Option<String>, String> {
    let body = answer(client.get(door.url("/")), 200).await?;
    if body.contains("visits-total\">–") {
        return Err("the database did not answer".to_owned());
    }
    Ok(None)
}

/// The sample takes no posts: that it says so is an answer of the tenant, which the edge never gives by itself.
async fn post(client: &reqwest::Client, door: &Door) -> Result<Option<String>, String> {
    answer(client.post(door.url("/")).body("x".repeat(2000)), 405).await?;
    Ok(None)
}
