//! Log lines of a tenant, line by line as they come.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::ACCEPT;

use crate::api::id::TenantId;
use crate::api::log::{CONTENT_TYPE, LogLine, LogQuery};
use crate::client::Client;
use crate::client::error::ClientError;

/// A line that is longer than this is cut off from the rest.
const LONGEST_LINE: usize = 1024 * 1024;

impl Client {
    /// Tells every line to `take` until the end, or for ever with `follow`, or until `take` has enough.
    pub async fn read_logs(
        &self,
        tenant: &TenantId,
        query: &LogQuery,
        take: &mut (dyn FnMut(LogLine) -> ControlFlow<()> + Send),
    ) -> Result<(), ClientError> {
        let mut query = query.clone();
        let mut last: Option<u64> = None;
        let mut was_connected = false;
        loop {
            let ended = self
                .read_logs_once(tenant, &query, &mut was_connected, &mut |line| {
                    last = Some(line.seq);
                    take(line)
                })
                .await;
            match ended {
                Ok(ControlFlow::Break(())) => return Ok(()),
                Ok(ControlFlow::Continue(())) if !query.follow => return Ok(()),
                Ok(ControlFlow::Continue(())) => {}
                Err(ClientError::Broken { .. }) if query.follow => {}
                Err(error) if query.follow && was_connected && error.is_passing() => {
                    (self.inner.notice)(&format!("{error}; still trying"));
                }
                Err(error) => return Err(error),
            }
            // Lines are numbered: a new connection goes on after the last one.
            query.after = last;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn read_logs_once(
        &self,
        tenant: &TenantId,
        query: &LogQuery,
        was_connected: &mut bool,
        take: &mut (dyn FnMut(LogLine) -> ControlFlow<()> + Send),
    ) -> Result<ControlFlow<()>, ClientError> {
        let url = self.url(&format!("/api/v1/tenants/{tenant}/logs"), None);
        let request = self
            .inner
            .streams
            .get(url)
            .query(query)
            .header(ACCEPT, CONTENT_TYPE)
            .bearer_auth(self.access_token().await?.expose());
        let response = request.send().await.map_err(|error| self.lost(error))?;
        let mut chunks = self.accepted(response).await?.bytes_stream();
        *was_connected = true;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk.map_err(|error| self.lost(error))?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if let Ok(line) = serde_json::from_slice(&line)
                    && take(line).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if rest.len() > LONGEST_LINE {
                rest.clear();
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
