//! The container of a local database: made as Compose would make it, started, waited for, removed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error as DockerError;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Mount, MountType, NetworkCreateRequest,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures::StreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::image::database::compose::{DATA_DIRECTORY, SERVICE, config_hash};
use crate::image::database::{DatabaseState, LocalDatabase};
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};
use crate::image::pull::{self, Wanted};

/// The Compose whose labels are copied.
const COMPOSE_VERSION: &str = "2.32.0";
const PORT: &str = "5432/tcp";
const WAIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(200);
const STOP_SECONDS: i32 = 20;

pub(super) async fn start(
    database: &LocalDatabase,
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    let id = "database".to_owned();
    let label = format!("Starting PostgreSQL of `{}`", database.name);
    progress.report(ProgressEvent::Started {
        id: id.clone(),
        label,
        total_bytes: None,
    });
    if !is_as_described(database, engine).await? {
        let wanted = Wanted {
            image: &database.image,
            stand_in: None,
        };
        pull::ensure(engine, &wanted, progress).await?;
        create(database, engine).await?;
    }
    let name = container_name(database);
    engine
        .docker()
        .start_container(&name, None::<StartContainerOptions>)
        .await
        .or_else(|error| {
            if status(&error) == Some(304) {
                Ok(())
            } else {
                Err(error)
            }
        })
        .map_err(|error| start_failed(database, error))?;
    wait(database, engine).await?;
    let summary = format!("PostgreSQL answers on 127.0.0.1:{}", database.port);
    progress.report(ProgressEvent::Finished { id, summary });
    Ok(())
}

pub(super) async fn stop(database: &LocalDatabase, engine: &Engine) -> Result<(), ImageError> {
    let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
    let stopped = engine
        .docker()
        .stop_container(&container_name(database), Some(options))
        .await;
    ignoring(stopped, &[304, 404]).map_err(ImageError::engine(format!(
        "stop the database of `{}`",
        database.name
    )))
}

pub(super) async fn state(database: &LocalDatabase, engine: &Engine) -> Result<DatabaseState, ImageError> {
    let name = container_name(database);
    match engine
        .docker()
        .inspect_container(&name, None::<InspectContainerOptions>)
        .await
    {
        Ok(container) if container.state.as_ref().and_then(|state| state.running) == Some(true) => {
            Ok(DatabaseState::Running)
        }
        Ok(_) => Ok(DatabaseState::Stopped),
        Err(error) if status(&error) == Some(404) => Ok(DatabaseState::Absent),
        Err(error) => Err(ImageError::engine(format!("look at the container `{name}`"))(
            error,
        )),
    }
}

pub(super) async fn remove(database: &LocalDatabase, engine: &Engine, data: bool) -> Result<(), ImageError> {
    stop(database, engine).await?;
    remove_container(database, engine).await?;
    let network = network_name(database);
    ignoring(engine.docker().remove_network(&network).await, &[404])
        .map_err(ImageError::engine(format!("remove the network `{network}`")))?;
    if data {
        let volume = volume_name(database);
        ignoring(
            engine
                .docker()
                .remove_volume(&volume, None::<RemoveVolumeOptions>)
                .await,
            &[404],
        )
        .map_err(ImageError::engine(format!("remove the volume `{volume}`")))?;
    }
    Ok(())
}

/// Whether the container is there and was made from this very Compose file.
async fn is_as_described(database: &LocalDatabase, engine: &Engine) -> Result<bool, ImageError> {
    let name = container_name(database);
    let container = match engine
        .docker()
        .inspect_container(&name, None::<InspectContainerOptions>)
        .await
    {
        Ok(container) => container,
        Err(error) if status(&error) == Some(404) => return Ok(false),
        Err(error) => {
            return Err(ImageError::engine(format!("look at the container `{name}`"))(
                error,
            ));
        }
    };
    let labels = container
        .config
        .and_then(|config| config.labels)
        .unwrap_or_default();
    if labels.get("com.docker.compose.config-hash") == Some(&config_hash(database)) {
        return Ok(true);
    }
    // Made by Compose itself, or from an older file: made again over the same volume, as Compose does.
    stop(database, engine).await?;
    remove_container(database, engine).await?;
    Ok(false)
}

async fn remove_container(database: &LocalDatabase, engine: &Engine) -> Result<(), ImageError> {
    let name = container_name(database);
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    ignoring(
        engine.docker().remove_container(&name, Some(options)).await,
        &[404],
    )
    .map_err(ImageError::engine(format!("remove the container `{name}`")))
}

async fn create(database: &LocalDatabase, engine: &Engine) -> Result<(), ImageError> {
    let volume = VolumeCreateRequest {
        name: Some(volume_name(database)),
        labels: Some(labels(database, &[("volume", "data")])),
        ..VolumeCreateRequest::default()
    };
    engine
        .docker()
        .create_volume(volume)
        .await
        .map_err(ImageError::engine("make the volume of the database"))?;
    create_network(database, engine).await?;
    let options = CreateContainerOptionsBuilder::default()
        .name(&container_name(database))
        .build();
    engine
        .docker()
        .create_container(Some(options), container_body(database))
        .await
        .map_err(ImageError::engine("make the container of the database"))?;
    Ok(())
}

async fn create_network(database: &LocalDatabase, engine: &Engine) -> Result<(), ImageError> {
    let name = network_name(database);
    // The engine allows several networks of one name, so it is looked up first.
    match engine
        .docker()
        .inspect_network(&name, None::<InspectNetworkOptions>)
        .await
    {
        Ok(_) => return Ok(()),
        Err(error) if status(&error) == Some(404) => {}
        Err(error) => return Err(ImageError::engine(format!("look at the network `{name}`"))(error)),
    }
    let request = NetworkCreateRequest {
        name,
        driver: Some("bridge".to_owned()),
        labels: Some(labels(database, &[("network", "default")])),
        ..NetworkCreateRequest::default()
    };
    engine
        .docker()
        .create_network(request)
        .await
        .map_err(ImageError::engine("make the network of the database"))?;
    Ok(())
}

fn container_body(database: &LocalDatabase) -> ContainerCreateBody {
    let compose_file = database.compose_path();
    let directory = compose_file
        .parent()
        .unwrap_or(&database.root)
        .display()
        .to_string();
    let labels = labels(
        database,
        &[
            ("service", SERVICE),
            ("config-hash", &config_hash(database)),
            ("container-number", "1"),
            ("oneoff", "False"),
            ("depends_on", ""),
            ("project.working_dir", &directory),
            ("project.config_files", &compose_file.display().to_string()),
        ],
    );
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(database.port.to_string()),
    };
    let endpoint = EndpointSettings {
        aliases: Some(vec![container_name(database), SERVICE.to_owned()]),
        ..EndpointSettings::default()
    };
    ContainerCreateBody {
        image: Some(database.image.clone()),
        env: Some(vec![
            "POSTGRES_USER=app".to_owned(),
            "POSTGRES_DB=app".to_owned(),
            format!("POSTGRES_PASSWORD={}", database.password.expose()),
        ]),
        labels: Some(labels),
        exposed_ports: Some(vec![PORT.to_owned()]),
        host_config: Some(HostConfig {
            port_bindings: Some(HashMap::from([(PORT.to_owned(), Some(vec![binding]))])),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            mounts: Some(vec![Mount {
                typ: Some(MountType::VOLUME),
                source: Some(volume_name(database)),
                target: Some(DATA_DIRECTORY.to_owned()),
                ..Mount::default()
            }]),
            network_mode: Some(network_name(database)),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network_name(database), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

/// Waits until the server lets the role in: it restarts once while it sets itself up, and answers "starting up" before.
async fn wait(database: &LocalDatabase, engine: &Engine) -> Result<(), ImageError> {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(database.port)
        .username("app")
        .password(database.password.expose())
        .database("app")
        .ssl_mode(PgSslMode::Disable);
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let last = match tokio::time::timeout(Duration::from_secs(5), options.connect()).await {
            Ok(Ok(connection)) => return connection.close().await.or(Ok(())),
            Ok(Err(error)) if is_wrong_password(&error) => {
                return Err(ImageError::Database {
                    what: format!("the data of `{}` was made with another password", database.name),
                    hint: format!(
                        "put that password back into {}, or remove the data with `docker volume rm {}`",
                        database.environment_path().display(),
                        volume_name(database)
                    ),
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 5 s".to_owned(),
        };
        let runs = state(database, engine).await? == DatabaseState::Running;
        if !runs || tokio::time::Instant::now() > deadline {
            return Err(not_ready(database, engine, &last).await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_wrong_password(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code == "28P01" || code == "28000")
}

async fn not_ready(database: &LocalDatabase, engine: &Engine, last: &str) -> ImageError {
    let name = container_name(database);
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .tail("5")
        .build();
    let mut lines = Vec::new();
    let mut logs = engine.docker().logs(&name, Some(options));
    while let Some(Ok(line)) = logs.next().await {
        lines.push(line.to_string().trim_end().to_owned());
    }
    let printed = if lines.is_empty() {
        String::new()
    } else {
        format!("; it printed: {}", lines.join(" | "))
    };
    ImageError::Database {
        what: format!(
            "PostgreSQL of `{}` does not answer on 127.0.0.1:{} ({last}){printed}",
            database.name, database.port
        ),
        hint: format!("`docker logs {name}` has the rest"),
    }
}

fn start_failed(database: &LocalDatabase, error: DockerError) -> ImageError {
    let text = error.to_string();
    if text.contains("address already in use") || text.contains("port is already allocated") {
        return ImageError::Database {
            what: format!("port {} of 127.0.0.1 is taken by another program", database.port),
            hint: format!(
                "stop that program, or change the port in {} and in the profile's `database_url`",
                database.compose_path().display()
            ),
        };
    }
    ImageError::engine(format!("start the database of `{}`", database.name))(error)
}

fn labels(database: &LocalDatabase, more: &[(&str, &str)]) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        ("com.docker.compose.project".to_owned(), database.project.clone()),
        (
            "com.docker.compose.version".to_owned(),
            COMPOSE_VERSION.to_owned(),
        ),
        ("io.systemprompt.role".to_owned(), "local-database".to_owned()),
    ]);
    for (name, value) in more {
        labels.insert(format!("com.docker.compose.{name}"), (*value).to_owned());
    }
    labels
}

fn container_name(database: &LocalDatabase) -> String {
    format!("{}-{SERVICE}-1", database.project)
}

fn volume_name(database: &LocalDatabase) -> String {
    format!("{}_data", database.project)
}

fn network_name(database: &LocalDatabase) -> String {
    format!("{}_default", database.project)
}

fn status(error: &DockerError) -> Option<u16> {
    match error {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn ignoring(result: Result<(), DockerError>, statuses: &[u16]) -> Result<(), DockerError> {
    match result {
        Err(error) if status(&error).is_some_and(|status| statuses.contains(&status)) => Ok(()),
        other => other,
    }
}
