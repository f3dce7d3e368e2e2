//! Tenants' histories as many read them at once: one look at the table for all who wait, and one for each credential
//! whether it still lets its readers in.
//!
//! What is handed to readers was read from the table by one of them in everybody's name; whoever is further behind than
//! what is at hand reads the table itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;

use crate::api::event::Event;
use crate::api::id::TenantId;
use crate::api::page::MAX_LIMIT;
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::access::LOOK_AGAIN;
use crate::server::http::error::chain;
use crate::server::store::{StoreError, events};

/// The table is looked at this often without a signal while signals of other servers may go unheard…
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// …and this often while they are heard: one that was killed between its commit and its signal has given none.
const LOOK_NOW_AND_THEN: Duration = Duration::from_secs(5);
/// So many of the last lines are at hand for those who wait.
const AT_HAND: usize = 64;

/// One line, as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) text: Bytes,
}

/// The last lines of a history: those after number `after` up to the last one.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    after: u64,
    lines: VecDeque<Line>,
}

impl Recent {
    /// The number of the line before the first of these.
    pub(super) const fn after(&self) -> u64 {
        self.after
    }

    /// The lines after number `since`; `None` where that is further back than these reach.
    pub(super) fn since(&self, since: u64) -> Option<VecDeque<Line>> {
        if since < self.after {
            return None;
        }
        let behind = self.lines.iter().skip_while(|line| line.seq <= since);
        Some(behind.cloned().collect())
    }
}

/// The histories that somebody reads now, and the doors by which they came in.
#[derive(Debug, Default)]
pub struct Histories {
    read: Mutex<HashMap<TenantId, watch::Sender<Arc<Recent>>>>,
    doors: Mutex<HashMap<(TenantId, String), Weak<Door>>>,
}

/// Lets in whoever shows one credential, to one tenant; closed once that is not good any more.
#[derive(Debug)]
pub(super) struct Door(watch::Sender<bool>);

impl Door {
    /// Waits until it is closed.
    pub(super) async fn closed(&self) {
        let mut closed = self.0.subscribe();
        // The sender is this door's own: it does not go away meanwhile.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl App {
    /// What is new in the tenant's history after number `last`, as long as somebody reads it.
    pub(super) fn history(&self, tenant: &TenantId, last: u64) -> watch::Receiver<Arc<Recent>> {
        let mut read = self.histories.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = read.get(tenant) {
            return sender.subscribe();
        }
        let begun = Recent {
            after: last,
            lines: VecDeque::new(),
        };
        let (sender, receiver) = watch::channel(Arc::new(begun));
        read.insert(tenant.clone(), sender.clone());
        self.tasks
            .spawn(keep(self.clone(), tenant.clone(), (last, sender)));
        receiver
    }

    /// The door by which this caller reads the tenant's history.
    pub(super) fn door(&self, caller: &Principal, tenant: &TenantId) -> Arc<Door> {
        let mut doors = self
            .histories
            .doors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let name = (tenant.clone(), caller.credential.id().to_owned());
        if let Some(door) = doors.get(&name).and_then(Weak::upgrade) {
            return door;
        }
        let door = Arc::new(Door(watch::Sender::new(false)));
        doors.insert(name.clone(), Arc::downgrade(&door));
        let (app, caller, tenant) = (self.clone(), caller.clone(), tenant.clone());
        let watched = Arc::downgrade(&door);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = app.stopping.cancelled() => break,
                }
                if watched.strong_count() == 0 || app.is_shut_out(&caller, &tenant).await {
                    break;
                }
            }
            let mut doors = app.histories.doors.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody may have opened another one of that name meanwhile.
            if doors.get(&name).is_some_and(|door| door.ptr_eq(&watched)) {
                doors.remove(&name);
            }
            drop(doors);
            if let Some(door) = watched.upgrade() {
                door.0.send_replace(true);
            }
        });
        door
    }
}

/// Looks at the table whenever there is reason to, until nobody reads any more.
async fn keep(app: App, tenant: TenantId, (mut last, sender): (u64, watch::Sender<Arc<Recent>>)) {
    // Subscribed before the first look, so that nothing written in between goes unnoticed.
    let mut changes = app.provision.changes(&tenant);
    loop {
        match look(&app, &tenant, last).await {
            Ok(new) if !new.is_empty() => {
                last = new.last().map_or(last, |line| line.seq);
                sender.send_modify(|recent| {
                    let recent = Arc::make_mut(recent);
                    recent.lines.extend(new);
                    while recent.lines.len() > AT_HAND {
                        recent.after = recent.lines.pop_front().map_or(recent.after, |line| line.seq);
                    }
                });
                continue;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "streams of events end: the table cannot be read"
                );
                break;
            }
        }
        let patience = if app.provision.hears_everything() {
            LOOK_NOW_AND_THEN
        } else {
            LOOK_ANYWAY
        };
        tokio::select! {
            changed = tokio::time::timeout(patience, changes.changed()) => {
                if matches!(changed, Ok(Err(_))) {
                    // Nobody signals any more: only the clock is left.
                    tokio::time::sleep(LOOK_ANYWAY).await;
                }
            }
            () = sender.closed() => {}
            () = app.stopping.cancelled() => break,
        }
        let mut read = app.histories.read.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.receiver_count() == 0 {
            read.remove(&tenant);
            return;
        }
    }
    // Without this sender and that of the table every stream ends, and its reader comes back.
    let mut read = app.histories.read.lock().unwrap_or_else(PoisonError::into_inner);
    read.remove(&tenant);
}

async fn look(app: &App, tenant: &TenantId, since: u64) -> Result<Vec<Line>, StoreError> {
    let new = events::list_after(&mut app.store.look(), tenant, since, MAX_LIMIT).await?;
    Ok(new.iter().map(line).collect())
}

/// A line as it is sent.
pub(super) fn line(event: &Event) -> Line {
    let data = serde_json::to_string(event).unwrap_or_default();
    Line {
        seq: event.seq,
        text: Bytes::from(format!(
            "id: {}\nevent: {}\ndata: {data}\n\n",
            event.seq, event.event
        )),
    }
}
