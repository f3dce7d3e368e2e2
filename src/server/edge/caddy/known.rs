//! Who is made known to the edge: those that come while one is being written go together. Every write into a container costs
//! the engine a process of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex as StdMutex, PoisonError};

use tokio::sync::Mutex;

/// Labels that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Known {
    queue: StdMutex<Queue>,
    /// Whoever drew a number up to this one, and still waits, is written.
    written: Mutex<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    drawn: u64,
    waiting: BTreeMap<u64, String>,
}

impl Known {
    /// Has `label` written by `write`, together with all that wait by then. One that fails, or is dropped, fails nobody else.
    pub(super) async fn add<E>(
        &self,
        label: &str,
        write: impl AsyncFnOnce(&BTreeSet<String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mine = self.queue(|queue| {
            queue.drawn += 1;
            queue.waiting.insert(queue.drawn, label.to_owned());
            queue.drawn
        });
        let _place = Place { of: self, mine };
        let mut written = self.written.lock().await;
        if *written >= mine {
            return Ok(());
        }
        let (labels, last) = self.queue(|queue| (queue.waiting.values().cloned().collect(), queue.drawn));
        write(&labels).await?;
        *written = last;
        Ok(())
    }

    fn queue<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A place in the queue, given up however the wait ends: nobody who is gone is written by others.
struct Place<'a> {
    of: &'a Known,
    mine: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.queue(|queue| queue.waiting.remove(&self.mine));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::Known;

    #[tokio::test]
    async fn those_that_come_together_are_written_together_and_a_failure_is_of_one_alone() {
        let (known, writes) = (Known::default(), Mutex::new(Vec::new()));
        let write = async |labels: &BTreeSet<String>| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut writes = writes.lock().expect("the writes");
            writes.push(labels.iter().cloned().collect::<Vec<_>>().join(" "));
            // The second write fails.
            if writes.len() == 2 { Err(()) } else { Ok(()) }
        };
        let gone = tokio::time::timeout(Duration::from_millis(5), known.add("gone", write));
        let answers = futures::future::join_all(["a", "b", "c"].map(|label| known.add(label, write)));
        let first = async {
            assert!(known.add("first", write).await.is_ok());
        };
        let ((), answers, gone) = tokio::join!(first, answers, gone);
        assert!(gone.is_err(), "it did not wait");
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
        let writes = writes.into_inner().expect("the writes");
        assert_eq!(writes, ["first", "a b c", "b c"].map(str::to_owned));
    }
}
