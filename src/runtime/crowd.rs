//! One question at a time, whose answer is for everybody who waits by then.
//!
//! All visits of a day are one row of the database: with a question for each visitor, hundreds who come together wait
//! for each other, and for connections. Together they ask once.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Crowd<T> {
    waiting: Mutex<Waiting<T>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Waiting<T> {
    all: Vec<oneshot::Sender<T>>,
    /// What those who wait bring, together.
    brought: i64,
}

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        let waiting = Waiting {
            all: Vec::new(),
            brought: 0,
        };
        Self {
            waiting: Mutex::new(waiting),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl<T: Clone> Crowd<T> {
    /// Waits for an answer that was asked for after this was called. The question gets the sum of what everybody
    /// brings whom it is asked for. Who leaves while asking loses that sum, and nobody else's answer.
    pub(super) async fn ask(&self, brings: i64, question: impl AsyncFnOnce(i64) -> T) -> T {
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.lock();
            waiting.all.push(tell);
            waiting.brought += brings;
        }
        let turn = async {
            tokio::select! {
                biased;
                Ok(answer) = told => Err(answer),
                turn = self.turn.lock() => Ok(turn),
            }
        };
        let _turn = match turn.await {
            Ok(turn) => turn,
            Err(answer) => return answer,
        };
        let (count, brought) = {
            let mut waiting = self.lock();
            (waiting.all.len(), mem::take(&mut waiting.brought))
        };
        let answer = question(brought).await;
        // Only now, so that they find somebody else who asks when this one leaves before.
        let answered: Vec<_> = self.lock().all.drain(..count).collect();
        for tell in answered {
            // Who has left wants no answer.
            let _ = tell.send(answer.clone());
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::time::Duration;

    use futures::future::join_all;

    use super::Crowd;

    #[tokio::test]
    async fn who_comes_while_one_asks_is_answered_together() {
        let (crowd, asked) = (Crowd::<i64>::default(), Cell::new(0));
        let count = async |brought| {
            asked.set(asked.get() + 1);
            tokio::task::yield_now().await;
            brought
        };
        let first = crowd.ask(1, count);
        let others = join_all((0..50).map(|_| crowd.ask(1, count)));
        let (first, others) = tokio::join!(first, others);
        assert_eq!((first, asked.get()), (1, 2));
        assert_eq!(others, [50; 50]);
        assert_eq!(crowd.ask(0, count).await, 0);
    }

    #[tokio::test]
    async fn who_leaves_while_asking_leaves_the_others_to_ask() {
        let crowd = Crowd::<i64>::default();
        let leaves = async {
            let asks = crowd.ask(1, async |_| pending().await);
            tokio::time::timeout(Duration::from_millis(20), asks).await
        };
        let stays = async {
            tokio::task::yield_now().await;
            crowd.ask(2, async |brought| brought).await
        };
        let (left, stayed) = tokio::join!(leaves, stays);
        assert!(left.is_err());
        assert_eq!(stayed, 2);
    }
}
