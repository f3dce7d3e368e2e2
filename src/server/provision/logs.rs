//! Log lines of a tenant, from the machine that serves.

use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::api::log::{LogLine, LogQuery, LogSource};
use crate::server::providers::{LogQuery as ProviderQuery, ProviderError};
use crate::server::provision::Provision;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, releases};

const DEFAULT_TAIL: u32 = 100;

/// Lines as they come.
pub type LogLines = BoxStream<'static, Result<LogLine, LogError>>;

/// Why there are no lines.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing serves.
    #[error("failed to read the logs: no release serves\nhint: deploy one with `systemprompt deploy`")]
    NothingRuns,
    /// Nothing keeps those lines yet.
    #[error("failed to read the logs: only the lines of the release that serves are kept (`app`), not {0:?}")]
    NoSuchSource(LogSource),
    /// The provider has none.
    #[error("failed to read the logs from the provider")]
    Provider(#[source] ProviderError),
    /// The store failed.
    #[error("failed to find the release that serves")]
    Store(#[from] StoreError),
}

impl Provision {
    /// What the release that serves prints.
    ///
    /// # Errors
    /// Nothing serves, or the provider has no lines.
    pub async fn logs(&self, tenant: &TenantRow, query: &LogQuery) -> Result<LogLines, LogError> {
        let source = query.source.unwrap_or_default();
        if source != LogSource::App {
            return Err(LogError::NoSuchSource(source));
        }
        let number = tenant.current_release.ok_or(LogError::NothingRuns)?;
        let mut tx = self.0.parts.store.begin_read().await?;
        let release = releases::find(&mut tx, &tenant.id, number).await?;
        drop(tx);
        let machine = release
            .and_then(|release| release.machine_id)
            .ok_or(LogError::NothingRuns)?;
        let wanted = ProviderQuery {
            follow: query.follow,
            since_seconds: query.since.map(|since| since.as_millis() / 1000),
            tail: Some(query.tail.unwrap_or(DEFAULT_TAIL)),
        };
        let lines = self
            .0
            .parts
            .provider
            .logs(&machine, &wanted)
            .await
            .map_err(LogError::Provider)?;
        let (clock, since) = (self.0.parts.clock.clone(), query.since);
        let shown = lines
            .map(move |line| {
                line.map(|line| LogLine {
                    at: line.at.parse().unwrap_or_else(|_| clock.now()),
                    source,
                    stream: line.stream.to_owned(),
                    line: line.line,
                })
                .map_err(LogError::Provider)
            })
            // Providers know whole seconds only.
            .filter(move |line| {
                let wanted = !matches!((line, since), (Ok(line), Some(since)) if line.at <= since);
                std::future::ready(wanted)
            });
        Ok(shown.boxed())
    }
}
