//! How many may be inside at once: of one caller, and of all together. A seat is given back when it is dropped.
//!
//! What is counted hangs on this server (connections, memory, computation), so every server counts for itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many seats there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// As it is called in headers and messages.
    pub name: &'static str,
    /// For one caller.
    pub each: u32,
    /// For all together.
    pub all: u32,
}

/// The seats of one kind.
#[derive(Clone, Debug)]
pub struct Seats {
    room: Room,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_caller: HashMap<String, u32>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The caller has as many as one may have.
    Caller(Room),
    /// Everybody together has as many as there are.
    Server(Room),
}

/// One that is inside.
#[derive(Debug)]
pub struct Seat {
    caller: String,
    taken: Arc<Mutex<Taken>>,
}

impl Seats {
    /// All of them free.
    #[must_use]
    pub fn new(room: Room) -> Self {
        Self {
            room,
            taken: Arc::default(),
        }
    }

    /// Takes a seat for `caller`.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, caller: &str) -> Result<Seat, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.room.all {
            return Err(Full::Server(self.room));
        }
        let own = taken.by_caller.get(caller).copied().unwrap_or_default();
        if own >= self.room.each {
            return Err(Full::Caller(self.room));
        }
        taken.all += 1;
        taken.by_caller.insert(caller.to_owned(), own + 1);
        Ok(Seat {
            caller: caller.to_owned(),
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_caller.get_mut(&self.caller) {
            *own -= 1;
            // Callers are forgotten with their last seat, so that the table does not grow with who has ever come.
            if *own == 0 {
                taken.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Room, Seats};

    const ROOM: Room = Room {
        name: "test",
        each: 2,
        all: 3,
    };

    #[test]
    fn nobody_takes_all_and_seats_come_back() {
        let seats = Seats::new(ROOM);
        let first = seats.take("ada").expect("free");
        let second = seats.take("ada").expect("free");
        assert_eq!(seats.take("ada").expect_err("full"), Full::Caller(ROOM));
        let other = seats.take("bob").expect("free for others");
        assert_eq!(seats.take("eve").expect_err("full"), Full::Server(ROOM));
        drop(first);
        assert_eq!(seats.take("bob").map(|_| ()), Ok(()));
        drop((second, other));
        assert!(seats.taken.lock().expect("whole").by_caller.is_empty());
    }
}
