//! A tenant's history: pages of it, and the place up to which it has been read.

use crate::api::event::{Event, EventQuery};
use crate::api::id::TenantId;
use crate::api::page::{MAX_LIMIT, Page};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

/// The event that stands in for history which is no longer kept.
const SNAPSHOT: &str = "snapshot";

/// Up to which event a history has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor(pub(super) u64);

/// What to do with an event that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the next one.
    Next,
    /// It was here before.
    Seen,
    /// Some before it are missing.
    Gap,
}

impl Cursor {
    /// Takes an event of a stream; numbers have no gaps there.
    pub(super) fn take(&mut self, event: &Event) -> Step {
        // It says where the numbers go on, also when the server's history is shorter than what was read.
        if event.event == SNAPSHOT && event.seq != self.0 {
            self.0 = event.seq;
            return Step::Next;
        }
        if event.seq <= self.0 {
            return Step::Seen;
        }
        if event.seq > self.0 + 1 {
            return Step::Gap;
        }
        self.0 = event.seq;
        Step::Next
    }

    /// Takes an event of a page: what is missing there is not kept any more.
    pub(super) fn take_listed(&mut self, event: &Event) -> bool {
        let is_new = event.seq > self.0;
        self.0 = self.0.max(event.seq);
        is_new
    }
}

impl Client {
    /// A page of a tenant's history after event `since`.
    pub async fn list_events(
        &self,
        id: &TenantId,
        since: u64,
        limit: Option<u32>,
    ) -> Result<Vec<Event>, ClientError> {
        let page: Page<Event> = self.call(Self::events(&path(id), since, limit)?).await?;
        Ok(page.data)
    }

    /// The same, tried once.
    pub(super) async fn list_events_once(
        &self,
        id: &TenantId,
        since: u64,
    ) -> Result<Vec<Event>, ClientError> {
        let page: Page<Event> = self
            .call(Self::events(&path(id), since, Some(MAX_LIMIT))?.once())
            .await?;
        Ok(page.data)
    }

    fn events(path: &str, since: u64, limit: Option<u32>) -> Result<Call<'_>, ClientError> {
        Call::get(path).query(&EventQuery {
            since: Some(since),
            limit,
        })
    }
}

/// The route of a tenant's events.
pub(super) fn path(id: &TenantId) -> String {
    format!("/api/v1/tenants/{id}/events")
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Step};
    use crate::api::event::Event;
    use crate::api::id::TenantId;
    use crate::api::time::Time;

    fn event(seq: u64, name: &str) -> Event {
        Event {
            seq,
            tenant_id: TenantId::new(uuid::Uuid::from_u128(1)),
            operation_id: None,
            event: name.to_owned(),
            status: "running".to_owned(),
            message: String::new(),
            at: Time::from_millis(0),
            detail: serde_json::Value::Null,
        }
    }

    #[test]
    fn every_event_counts_once_and_in_order() {
        let mut cursor = Cursor(2);
        assert_eq!(cursor.take(&event(2, "app_created")), Step::Seen);
        assert_eq!(cursor.take(&event(3, "app_created")), Step::Next);
        assert_eq!(cursor.take(&event(3, "app_created")), Step::Seen);
        assert_eq!(cursor.take(&event(5, "app_created")), Step::Gap);
        assert_eq!(cursor, Cursor(3));
        assert_eq!(cursor.take(&event(40, "snapshot")), Step::Next);
        assert_eq!(cursor.take(&event(41, "app_created")), Step::Next);
        assert_eq!(cursor.take(&event(7, "snapshot")), Step::Next);
        assert_eq!(cursor.take(&event(8, "app_created")), Step::Next);
    }

    #[test]
    fn a_page_may_begin_after_what_is_no_longer_kept() {
        let mut cursor = Cursor(2);
        assert!(cursor.take_listed(&event(9, "app_created")));
        assert!(!cursor.take_listed(&event(9, "app_created")));
        assert_eq!(cursor, Cursor(9));
    }

    #[test]
    fn outside_bytes_as_event() {
        let seeds: [&[u8]; 2] = [
            br#"{"seq":1,"tenant_id":"ten_01m7yf8m6vebvts9qd0abfmdcn","operation_id":null,"event":"tenant_ready","status":"running","message":"it serves","at":"2026-11-21T09:11:00Z","detail":{"url":"http://x"}}"#,
            br#"{"seq":18446744073709551615,"detail":[[[[]]]]}"#,
        ];
        crate::mutation::torment(&seeds, |bytes| {
            serde_json::from_slice::<crate::api::event::Event>(bytes).is_ok()
        });
    }
}
