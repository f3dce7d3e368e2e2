//! `systemprompt audit`: who did what, from where, how it ended; and whether the record of it is whole.

use serde_json::json;

use crate::api::audit::{AuditEntry, AuditFault, AuditQuery};
use crate::api::id::TenantId;
use crate::api::page::MAX_LIMIT;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::point_in_time;
use crate::cli::tenant::pick::pick_cloud;

/// Flags of `systemprompt audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only acts on this tenant, by id or name; without it everything, which only operators may see
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only what began at this time or later: an RFC 3339 time, or how long ago (`2h`, `7d`)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Verify the whole chain of the installation: was a row changed, removed or put elsewhere? Only for operators
    #[arg(long, conflicts_with_all = ["tenant", "since"])]
    verify: bool,
}

/// Shows or verifies the audit.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    if args.verify {
        return verify(context).await;
    }
    let since = args
        .since
        .as_deref()
        .map(|text| point_in_time(text, context.clock().now()))
        .transpose()?;
    let tenant: Option<TenantId> = match &args.tenant {
        Some(text) => Some(pick_cloud(context, Some(text)).await?),
        None => None,
    };
    let client = context.client()?;
    let mut query = AuditQuery {
        since,
        limit: Some(MAX_LIMIT),
        cursor: None,
    };
    let mut shown = 0;
    loop {
        let page = client.audit_page(tenant.as_ref(), &query).await?;
        for entry in &page.data {
            context.ui().entry(entry, || line(entry))?;
            shown += 1;
        }
        match page.next_cursor {
            Some(next) => query.cursor = Some(next),
            None if shown == 0 => {
                context.ui().status("nothing is on record");
                return Ok(());
            }
            None => return Ok(()),
        }
    }
}

async fn verify(context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let mut faults: Vec<AuditFault> = Vec::new();
    let mut after = None;
    let verdict = loop {
        let verdict = client.verify_audit(after).await?;
        faults.extend(verdict.faults.iter().cloned());
        if verdict.finished || after == Some(verdict.verified_to) {
            break verdict;
        }
        after = Some(verdict.verified_to);
    };
    if faults.is_empty() {
        let document =
            json!({"rows": verdict.verified_to, "hash": verdict.hash, "whole": true, "faults": []});
        return context.ui().done(
            &document,
            format!(
                "{} rows, each follows the one before; the chain ends with `{}`",
                verdict.verified_to, verdict.hash
            ),
        );
    }
    let error = CliError::failed("the audit is not whole: somebody has changed it behind the server's back")
        .code("audit-broken")
        .details(faults.into_iter().map(|fault| fault.what))
        .hint("compare with an earlier export (`systemprompt audit --json`) or a backup of the database");
    Err(error)
}

/// One act as people read it; the role says by which door support came in.
fn line(entry: &AuditEntry) -> String {
    let who = entry
        .email
        .as_deref()
        .or(entry.account_id.as_ref().map(|id| id.as_str()))
        .unwrap_or("-");
    let shown = match &entry.credential_id {
        Some(id) => format!("{} {id}", entry.actor),
        None => entry.actor.clone(),
    };
    let tenant = entry.tenant_id.as_ref().map(TenantId::as_str);
    // The path's ids begin with the tenant's own, which stands there already.
    let target = entry.target.as_deref().map(|target| {
        target
            .strip_prefix(tenant.unwrap_or("-"))
            .unwrap_or(target)
            .trim_start()
    });
    let on: Vec<&str> = [tenant, target.filter(|target| !target.is_empty())]
        .into_iter()
        .flatten()
        .collect();
    let role = match &entry.role {
        Some(role) => format!(" as {role}"),
        None => String::new(),
    };
    let ended = match &entry.code {
        Some(code) => format!("{} ({code})", entry.result.as_str()),
        None => entry.result.as_str().to_owned(),
    };
    format!(
        "{:>6}  {}  {:<8}  {}  {}  by {who} ({shown}){role}  from {}",
        entry.seq,
        entry.at,
        ended,
        entry.action,
        on.join(" "),
        entry.address.as_deref().unwrap_or("-"),
    )
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::api::audit::AuditEntry;
    use serde_json::json;

    #[test]
    fn a_line_says_as_what_and_names_the_tenant_once() {
        let tenant = "ten_01m7z1dc2xe25rmr706fft4ey1";
        let entry: AuditEntry = serde_json::from_value(json!({
            "seq": 12, "at": "2026-11-21T12:31:04.739Z", "actor": "api_token", "credential_id": "tok_1",
            "account_id": null, "email": "op@example.com", "role": "support sup_1", "action": "get_tenant",
            "tenant_id": tenant, "target": format!("{tenant} v2"), "address": "127.0.0.1", "result": "done",
            "code": null, "request_id": "req_1", "previous_hash": "", "hash": ""
        }))
        .expect("an entry");
        assert_eq!(
            line(&entry),
            format!(
                "    12  2026-11-21T12:31:04.739Z  done      get_tenant  {tenant} v2  by op@example.com \
                 (api_token tok_1) as support sup_1  from 127.0.0.1"
            )
        );
    }
}
