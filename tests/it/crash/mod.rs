//! A real server process is killed at every place between two writes and on either side of every call into the world,
//! and started again. Whoever followed the work hears the right end of it, and nothing is lost, left or done twice.

mod acts;
mod check;
mod clock;
mod disk;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use systemprompt::server::provision::operations;

use crate::crash::acts::{House, Life};

/// Servers side by side; each waits much for its own restarts.
const SIDE_BY_SIDE: usize = 6;

/// Every act with the places that it is the first to pass, as the program itself names them.
fn places() -> Vec<VecDeque<String>> {
    let mut house = House::new();
    let mut known = BTreeSet::new();
    let mut places = vec![VecDeque::new(); acts::ORDER.len()];
    for number in acts::ORDER {
        house.server.forget_passed();
        house.perform(number, &[]);
        let new = house.server.passed().into_iter();
        places[number] = new.filter(|name| known.insert(name.clone())).collect();
        house.settle(number);
    }
    for (kind, steps) in operations() {
        for step in steps {
            for place in ["begun", "recorded"] {
                let name = format!("{kind}/{step}:{place}");
                assert!(known.contains(&name), "no act comes to `{name}`");
            }
        }
    }
    places
}

#[test]
fn every_operation_survives_death_at_every_failpoint() {
    let began = Instant::now();
    let places = places();
    let all: usize = places.iter().map(VecDeque::len).sum();
    let lives = Mutex::new(acts::lives(places));
    let survived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|_| scope.spawn(|| work(&lives, &survived)))
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                // The others need not go on: what is wrong with one is wrong.
                lives.lock().expect("the lives").clear();
                std::panic::resume_unwind(panic);
            }
        }
    });
    let survived = survived.into_inner();
    eprintln!(
        "{all} failpoints, {survived} survived ({} s)",
        began.elapsed().as_secs()
    );
    assert_eq!(survived, all);
}

fn work(lives: &Mutex<VecDeque<Life>>, survived: &AtomicUsize) {
    let mut house = House::new();
    loop {
        let Some(life) = lives.lock().expect("the lives").pop_front() else {
            return;
        };
        for (act, places) in life {
            house.perform(act, &places);
            house.settle(act);
            survived.fetch_add(places.len(), Ordering::Relaxed);
        }
    }
}
