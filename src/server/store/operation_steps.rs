//! Table `operation_steps`: the log of an operation. All its steps stand there from the beginning, in order.

use serde_json::Value as Json;

use crate::api::id::OperationId;
use crate::api::operation::Step;
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Nothing was done yet.
    Waiting,
    /// It was begun; it may have left something.
    Running,
    /// It is done and its output is kept.
    Done,
    /// It failed for good; it may have left something.
    Failed,
    /// Taking it back was begun.
    Undoing,
    /// Taking it back failed for good.
    UndoFailed,
    /// It was taken back.
    Undone,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// From 0.
    pub position: u32,
    /// Permanent, kebab-case.
    pub name: String,
    /// How it stands.
    pub status: StepStatus,
    /// How often it was tried in its present direction.
    pub attempts: u32,
    /// What it made, for the steps after it and for its undo.
    pub output: Json,
    /// Its last failure.
    pub error: Option<String>,
}

impl StepRow {
    /// The step as it is shown.
    #[must_use]
    pub fn shown(&self) -> Step {
        let status = match self.status {
            StepStatus::Waiting => "waiting",
            StepStatus::Running | StepStatus::Undoing => "running",
            StepStatus::Done => "done",
            StepStatus::Failed | StepStatus::UndoFailed => "failed",
            StepStatus::Undone => "undone",
        };
        Step {
            name: self.name.clone(),
            status: status.to_owned(),
            attempts: self.attempts,
            error: self.error.clone(),
        }
    }
}

/// Writes the whole list, all waiting.
///
/// # Errors
/// The database fails.
pub async fn insert_all(
    tx: &mut Tx,
    operation: &OperationId,
    names: &[&str],
    now: Time,
) -> Result<(), StoreError> {
    if !tx.is_sqlite() {
        // In one round trip; SQLite is in this process.
        tx.execute(
            "INSERT INTO operation_steps (operation_id, position, name, status, attempts, output, error,
                 updated_at)
             SELECT $1, number - 1, name, 'waiting', 0, NULL, NULL, $3
             FROM json_array_elements_text($2::json) WITH ORDINALITY AS steps (name, number)",
            vec![
                operation.as_str().into(),
                serde_json::json!(names).to_string().into(),
                now.into(),
            ],
        )
        .await?;
        return Ok(());
    }
    for (position, name) in (0_u32..).zip(names) {
        tx.execute(
            "INSERT INTO operation_steps (operation_id, position, name, status, attempts, output, error,
                 updated_at)
             VALUES ($1, $2, $3, 'waiting', 0, NULL, NULL, $4)",
            vec![
                operation.as_str().into(),
                position.into(),
                (*name).into(),
                now.into(),
            ],
        )
        .await?;
    }
    Ok(())
}

/// The log in order.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(tx: &mut Tx, operation: &OperationId) -> Result<Vec<StepRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM operation_steps WHERE operation_id = $1 ORDER BY position",
        vec![operation.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Writes steps as they stand now.
///
/// # Errors
/// [`StoreError::Missing`]: the operation has no such step.
pub async fn update(
    tx: &mut Tx,
    operation: &OperationId,
    steps: &[StepRow],
    now: Time,
) -> Result<(), StoreError> {
    if steps.len() > 1 && !tx.is_sqlite() {
        return update_together(tx, operation, steps, now).await;
    }
    for step in steps {
        let rows = tx
            .execute(
                "UPDATE operation_steps SET status = $3, attempts = $4, output = $5, error = $6, updated_at = $7
                 WHERE operation_id = $1 AND position = $2",
                vec![
                    operation.as_str().into(),
                    step.position.into(),
                    word_of(&step.status).into(),
                    step.attempts.into(),
                    kept_output(step).into(),
                    step.error.as_deref().into(),
                    now.into(),
                ],
            )
            .await?;
        if rows != 1 {
            return Err(missing(operation, &step.name));
        }
    }
    Ok(())
}

async fn update_together(
    tx: &mut Tx,
    operation: &OperationId,
    steps: &[StepRow],
    now: Time,
) -> Result<(), StoreError> {
    let rows = steps.iter().map(|step| {
        serde_json::json!({
            "position": step.position,
            "status": step.status,
            "attempts": step.attempts,
            "output": kept_output(step),
            "error": step.error,
        })
    });
    let written = tx
        .execute(
            "UPDATE operation_steps SET status = new.status, attempts = new.attempts, output = new.output,
                 error = new.error, updated_at = $3
             FROM json_to_recordset($2::json)
                 AS new (position bigint, status text, attempts bigint, output text, error text)
             WHERE operation_id = $1 AND operation_steps.position = new.position",
            vec![
                operation.as_str().into(),
                Json::from_iter(rows).to_string().into(),
                now.into(),
            ],
        )
        .await?;
    if written == steps.len() as u64 {
        return Ok(());
    }
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    Err(missing(operation, &names.join(", ")))
}

fn kept_output(step: &StepRow) -> Option<String> {
    (!step.output.is_null()).then(|| step.output.to_string())
}

fn missing(operation: &OperationId, step: &str) -> StoreError {
    StoreError::Missing {
        what: "step",
        id: format!("{operation}/{step}"),
    }
}

fn read(row: &Row) -> Result<StepRow, StoreError> {
    Ok(StepRow {
        position: row.u32("position")?,
        name: row.text("name")?,
        status: row.word("status")?,
        attempts: row.u32("attempts")?,
        output: row.opt_json("output")?.unwrap_or(Json::Null),
        error: row.opt_text("error")?,
    })
}
