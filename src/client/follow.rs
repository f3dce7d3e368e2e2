//! Follows an operation, or a tenant's history, through cut streams and restarted servers.
//!
//! Every round reads what was missed as plain JSON, looks at the operation's row, then listens to a stream until
//! that ends. So a stream that never works only makes it slower, and only the row says how the operation ended.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use crate::api::event::Event;
use crate::api::id::{OperationId, TenantId};
use crate::api::operation::{Operation, OperationStatus};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::events::{Cursor, Step, path};
use crate::client::send::Call;
use crate::client::sse::{self, Item};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Events come in bursts; the row is looked at when one is over.
const LOOK_AFTER_EVENT: Duration = Duration::from_millis(50);
/// The row is looked at this often even when no event comes.
const LOOK_ALWAYS: Duration = Duration::from_secs(3);
/// A pause shorter than this is nobody's business.
const SAY_AFTER: Duration = Duration::from_secs(2);
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Who waits for the end of an operation is told when the server does not come back for so long.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// What following tells.
#[derive(Debug)]
pub enum Update<'a> {
    /// Something happened.
    Event(&'a Event),
    /// How the operation stands now.
    Operation(&'a Operation),
    /// The server does not answer; we go on trying.
    Waiting(&'a ClientError),
    /// The server answers again.
    Back,
}

/// Takes updates; may ask to stop.
pub type Listener<'a> = &'a mut (dyn FnMut(Update<'_>) -> ControlFlow<()> + Send);

impl Client {
    /// Follows an operation to its end; tells events after `since`. The answer is its last row.
    pub async fn follow_operation(
        &self,
        operation: &Operation,
        since: u64,
        timeout: Duration,
        listener: Listener<'_>,
    ) -> Result<Operation, ClientError> {
        let mut following = Following::new(self, &operation.tenant_id, since, listener);
        following.operation = Some(&operation.id);
        let still_running = || ClientError::StillRunning {
            operation: operation.id.clone(),
            waited: timeout,
        };
        let ended = tokio::time::timeout(timeout, following.run())
            .await
            .map_err(|_| still_running())??;
        ended.ok_or_else(still_running)
    }

    /// Follows a tenant's history after `since` until the listener has enough.
    pub async fn follow_events(
        &self,
        tenant: &TenantId,
        since: u64,
        listener: Listener<'_>,
    ) -> Result<(), ClientError> {
        Following::new(self, tenant, since, listener)
            .run()
            .await
            .map(|_| ())
    }

    async fn look(&self, id: &OperationId) -> Result<Operation, ClientError> {
        self.call(Call::get(&format!("/api/v1/operations/{id}")).once())
            .await
    }
}

struct Following<'a, 'l> {
    client: &'a Client,
    tenant: &'a TenantId,
    operation: Option<&'a OperationId>,
    cursor: Cursor,
    listener: Listener<'l>,
    failing_since: Option<Instant>,
    said: Option<Instant>,
}

/// Why a round is over.
enum Round {
    Ended(Box<Operation>),
    Enough,
    Again,
}

impl<'a, 'l> Following<'a, 'l> {
    fn new(client: &'a Client, tenant: &'a TenantId, since: u64, listener: Listener<'l>) -> Self {
        Self {
            client,
            tenant,
            operation: None,
            cursor: Cursor(since),
            listener,
            failing_since: None,
            said: None,
        }
    }

    async fn run(&mut self) -> Result<Option<Operation>, ClientError> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let before = self.cursor;
            match self.round().await {
                Ok(Round::Ended(operation)) => return Ok(Some(*operation)),
                Ok(Round::Enough) => return Ok(None),
                Ok(Round::Again) => {}
                Err(error) if error.is_passing() && !self.has_enough() => self.is_failing(&error),
                Err(error) => return Err(error),
            }
            pause = if self.cursor == before {
                (pause * 2).min(LONGEST_PAUSE)
            } else {
                SHORTEST_PAUSE
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn round(&mut self) -> Result<Round, ClientError> {
        if self.catch_up().await?.is_break() {
            return Ok(Round::Enough);
        }
        let mut known = None;
        if let Some(ended) = self.look(&mut known).await? {
            return Ok(Round::Ended(Box::new(ended)));
        }
        self.listen(&mut known).await
    }

    /// Reads what was missed as plain JSON.
    async fn catch_up(&mut self) -> Result<ControlFlow<()>, ClientError> {
        loop {
            let events = self.client.list_events_once(self.tenant, self.cursor.0).await?;
            self.is_well();
            let mut is_new = false;
            for event in &events {
                if self.cursor.take_listed(event) {
                    is_new = true;
                    if (self.listener)(Update::Event(event)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            if !is_new {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Looks at the operation's row; answers it when nothing more will happen, after every event was told.
    async fn look(&mut self, known: &mut Option<Operation>) -> Result<Option<Operation>, ClientError> {
        let Some(id) = self.operation else { return Ok(None) };
        let operation = self.client.look(id).await?;
        self.is_well();
        let _ = (self.listener)(Update::Operation(&operation));
        if operation.status.is_terminal() || operation.status == OperationStatus::Stuck {
            let _ = self.catch_up().await?;
            return Ok(Some(operation));
        }
        *known = Some(operation);
        Ok(None)
    }

    /// Listens to a stream until it ends, is silent about something that the row shows, or the work is over.
    async fn listen(&mut self, known: &mut Option<Operation>) -> Result<Round, ClientError> {
        let token = self.client.access_token().await?;
        let url = self.client.url(&path(self.tenant), None);
        let streams = &self.client.inner.streams;
        let Some(mut stream) = sse::open(streams, url.as_str(), &token, self.cursor.0) else {
            return Ok(Round::Again);
        };
        let mut next_look = tokio::time::Instant::now() + LOOK_ALWAYS;
        let mut heard = false;
        loop {
            tokio::select! {
                item = stream.next() => match item {
                    None => return Ok(Round::Again),
                    Some(Item::Alive) => self.is_well(),
                    Some(Item::Data(data)) => {
                        let Ok(event) = serde_json::from_str::<Event>(&data) else {
                            return Ok(Round::Again);
                        };
                        match self.cursor.take(&event) {
                            Step::Seen => {}
                            Step::Gap => return Ok(Round::Again),
                            Step::Next if (self.listener)(Update::Event(&event)).is_break() => {
                                return Ok(Round::Enough);
                            }
                            Step::Next => {
                                heard = true;
                                next_look = tokio::time::Instant::now() + LOOK_AFTER_EVENT;
                            }
                        }
                    }
                },
                () = tokio::time::sleep_until(next_look) => {
                    let before = known.as_ref().map(|operation| operation.updated_at);
                    if let Some(ended) = self.look(known).await? {
                        return Ok(Round::Ended(Box::new(ended)));
                    }
                    let moved = before != known.as_ref().map(|operation| operation.updated_at);
                    // Something in between may hold the stream back: the row moved and we heard nothing.
                    let is_held_back = !heard && (moved || self.operation.is_none());
                    if is_held_back && self.catch_up().await?.is_break() {
                        return Ok(Round::Enough);
                    }
                    heard = false;
                    next_look = tokio::time::Instant::now() + LOOK_ALWAYS;
                }
            }
        }
    }

    /// Whether there is an end to wait for, and nobody who could tell it. A history is followed for ever.
    fn has_enough(&self) -> bool {
        let since = self.failing_since.filter(|_| self.operation.is_some());
        since.is_some_and(|since| since.elapsed() >= GIVE_UP_AFTER)
    }

    fn is_failing(&mut self, error: &ClientError) {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let is_due = self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN);
        if since.elapsed() >= SAY_AFTER && is_due {
            self.said = Some(Instant::now());
            let _ = (self.listener)(Update::Waiting(error));
        }
    }

    fn is_well(&mut self) {
        self.failing_since = None;
        if self.said.take().is_some() {
            let _ = (self.listener)(Update::Back);
        }
    }
}
