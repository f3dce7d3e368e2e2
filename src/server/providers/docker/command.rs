//! A command that runs once per release, however often it is asked for.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{KillContainerOptions, StartContainerOptions, WaitContainerOptionsBuilder};
use futures::StreamExt as _;

use crate::server::containers::{ContainerSpec, Engine, EngineError, EngineFault};
use crate::server::providers::docker::logs;
use crate::server::providers::{CommandOutcome, ProviderError};

const TAIL: u32 = 100;

/// Runs the container to its end, or finds the one that ran. It stays, ended, until the release starts or goes.
pub(super) async fn run(
    engine: &Engine,
    spec: &ContainerSpec,
    timeout: Duration,
) -> Result<CommandOutcome, ProviderError> {
    let found = engine.create_container(spec).await?;
    // A container that was made and never started belongs to a process that died between the two.
    if status(&found) == Some(ContainerStateStatusEnum::CREATED) {
        start(engine, &spec.name).await?;
    }
    let in_time = tokio::time::timeout(timeout, wait(engine, &spec.name)).await;
    if let Ok(waited) = in_time {
        waited?;
        return outcome(engine, &spec.name).await;
    }
    kill(engine, &spec.name).await?;
    wait(engine, &spec.name).await?;
    let mut outcome = outcome(engine, &spec.name).await?;
    outcome.log_tail.push(format!(
        "killed: it ran longer than {} seconds",
        timeout.as_secs()
    ));
    Ok(outcome)
}

async fn start(engine: &Engine, name: &str) -> Result<(), EngineError> {
    let started = engine
        .docker()
        .await?
        .start_container(name, None::<StartContainerOptions>)
        .await;
    started.map_err(|source| EngineError::engine(format!("start the container `{name}`"), source))
}

async fn kill(engine: &Engine, name: &str) -> Result<(), EngineError> {
    let killed = engine
        .docker()
        .await?
        .kill_container(name, None::<KillContainerOptions>)
        .await;
    match killed.map_err(|source| EngineError::engine(format!("kill the container `{name}`"), source)) {
        // It ended by itself meanwhile.
        Err(error) if error.fault == EngineFault::Conflict => Ok(()),
        other => other,
    }
}

async fn wait(engine: &Engine, name: &str) -> Result<(), EngineError> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    let mut waiting = engine.docker().await?.wait_container(name, Some(options));
    match waiting.next().await {
        // Any exit code but 0 comes as an error; the code itself is read from the container.
        Some(Err(bollard::errors::Error::DockerContainerWaitError { .. })) | Some(Ok(_)) => Ok(()),
        Some(Err(source)) => Err(EngineError::engine(
            format!("wait for the container `{name}`"),
            source,
        )),
        None => Err(EngineError::busy(format!("wait for the container `{name}`"))),
    }
}

async fn outcome(engine: &Engine, name: &str) -> Result<CommandOutcome, ProviderError> {
    let gone = || EngineError::missing(format!("find the container `{name}`"));
    let found = engine.find_container(name).await?.ok_or_else(gone)?;
    let state = found.state.unwrap_or_default();
    let mut log_tail = logs::tail(engine, name, TAIL).await?;
    if state.oom_killed == Some(true) {
        log_tail.push("killed: it used more memory than the tenant has".to_owned());
    }
    Ok(CommandOutcome {
        machine_id: name.to_owned(),
        exit_code: state.exit_code.unwrap_or(-1),
        log_tail,
    })
}

fn status(container: &ContainerInspectResponse) -> Option<ContainerStateStatusEnum> {
    container.state.as_ref().and_then(|state| state.status)
}
