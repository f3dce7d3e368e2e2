//! Makes the edge run as it shall, and puts up the signs where it sees them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::StatusCode;
use http::header::HOST;
use rand::RngExt as _;

use crate::server::containers::{
    ContainerFile, EngineError, EngineFault, Ensured, ImageChoice, Labels, NetworkSpec, key,
};
use crate::server::edge::caddy::config::Plan;
use crate::server::edge::caddy::pages::NOBODY;
use crate::server::edge::caddy::render::{self, DATA, ROLE};
use crate::server::edge::caddy::signs::{self, IN_VOLUME, Place};
use crate::server::edge::caddy::{CaddyEdge, Inner};
use crate::server::edge::{EdgeError, EdgeSettings};

/// The image that `scripts/setup` builds where none can be pulled.
const STAND_IN: &str = "systemprompt-standin/caddy:2";
/// For how long an edge that does not see the folder may serve those that it serves.
const GRACE: Duration = Duration::from_secs(15);

impl CaddyEdge {
    /// The container runs afterwards, in every tenant's edge network, and answers. Says where it looks for signs.
    pub(super) async fn ensure(&self) -> Result<Place, EdgeError> {
        let mut ready = self.0.ready.lock().await;
        if let Some(place) = &*ready {
            return Ok(place.clone());
        }
        let Inner { engine, settings, .. } = &*self.0;
        let name = self.name();
        let choice = ImageChoice {
            wanted: &settings.image,
            stand_in: STAND_IN,
        };
        let image = engine.ensure_image(choice).await?;
        let labels = Labels::of_installation(ROLE);
        engine.ensure_volume(&name, &labels, &[]).await?;
        let network = NetworkSpec {
            name,
            subnet: None,
            internal: false,
            labels,
        };
        engine.ensure_network(&network).await?;
        let place = self.settle(&image).await?;
        Ok(ready.insert(place).clone())
    }

    /// Runs the container over the folder if it sees that, else over the volume.
    async fn settle(&self, image: &str) -> Result<Place, EdgeError> {
        let wanted = Place::wanted(&self.0.settings);
        let Place::Folder(folder) = &wanted else {
            self.run(image, &wanted).await?;
            return Ok(wanted);
        };
        self.take_over(folder).await?;
        let ensured = self.run(image, &wanted).await?;
        if self.sees(folder).await? {
            self.forget_volume().await?;
            return Ok(wanted);
        }
        // It may see a folder that was there before this one.
        if ensured == Ensured::Adopted {
            let name = self.name();
            self.0.engine.remove_container(&name, GRACE).await?;
            self.run(image, &wanted).await?;
            if self.sees(folder).await? {
                self.forget_volume().await?;
                return Ok(wanted);
            }
        }
        tracing::warn!(
            folder = %folder.display(),
            "the edge does not see the folder of this server, as when the server runs in a container itself: it is \
             told through the engine who is there, which takes longer, and tenants with edge sessions let nobody in; \
             to have it looked at again, remove `{}` from the folder and restart the server",
            signs::NOT_SHOWN
        );
        local(folder, "write into", signs::not_shown).await?;
        self.run(image, &Place::Volume).await?;
        Ok(Place::Volume)
    }

    async fn run(&self, image: &str, place: &Place) -> Result<Ensured, EdgeError> {
        let Inner { engine, settings, .. } = &*self.0;
        let (name, tenants) = (self.name(), place.inside());
        let plan = Plan {
            settings,
            tenants: &tenants,
        };
        let spec = render::container(&name, image, plan);
        let ensured = engine.ensure_container(&spec).await;
        let ensured = ensured.map_err(|error| self.explain(error))?;
        if ensured == Ensured::Made {
            for network in engine.list_networks(&[(key::ROLE, "edge-network")]).await? {
                engine.connect(&network, &name, &[]).await?;
            }
        }
        self.wait_for_answer().await?;
        Ok(ensured)
    }

    /// An edge that was told through its volume until now is told the same through the folder.
    async fn take_over(&self, folder: &Path) -> Result<(), EdgeError> {
        if signs::is_begun(folder) {
            return Ok(());
        }
        let archive = match self.0.engine.find_container(&self.name()).await? {
            Some(_) => {
                let path = format!("{DATA}/{IN_VOLUME}");
                let taken = self.take_out(&path, "read who is known to the edge").await;
                match taken {
                    Err(error) if error.fault == EngineFault::NotFound => None,
                    taken => Some(taken?).filter(|archive| signs::is_directory(archive)),
                }
            }
            None => None,
        };
        local(folder, "begin", move |folder| {
            signs::begin(folder, archive.as_deref())
        })
        .await
    }

    /// What the volume says is out of date from now on, and must not be taken over once more: an address may be that of
    /// another tenant's release by then.
    async fn forget_volume(&self) -> Result<(), EdgeError> {
        let (engine, name) = (&self.0.engine, self.name());
        if !engine.holds_file(&name, &format!("{DATA}/{IN_VOLUME}")).await? {
            engine.upload(&name, &[render::entry(IN_VOLUME)]).await?;
        }
        Ok(())
    }

    /// Whether somebody who is made known in the folder is known to the edge.
    async fn sees(&self, folder: &Path) -> Result<bool, EdgeError> {
        // No tenant's label begins so, and no other server of the folder asks for the same.
        let label = format!("-seen-{:016x}", rand::rng().random::<u64>());
        let shown = vec![format!("{label}/")];
        local(folder, "write into", move |folder| signs::put_up(folder, &shown)).await?;
        let answer = self.answer_to(&self.0.settings.hostname(&label)).await;
        local(folder, "write into", move |folder| {
            signs::take_down(folder, &label)
        })
        .await?;
        Ok(answer?.as_str() == NOBODY.status)
    }

    async fn answer_to(&self, hostname: &str) -> Result<StatusCode, EdgeError> {
        let url = format!("http://127.0.0.1:{}/", self.0.settings.http_port);
        let answer = self.0.http.get(url).header(HOST, hostname).send().await;
        let answer = answer.map_err(|source| EdgeError::Retry {
            what: "failed to see whom the edge knows".to_owned(),
            source: Some(Box::new(source)),
        })?;
        Ok(answer.status())
    }

    /// An archive of what the container has under a path, running or not.
    pub(super) async fn take_out(&self, path: &str, action: &str) -> Result<Vec<u8>, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let docker = self.0.engine.docker().await?;
        let chunks = docker.download_from_container(&self.name(), Some(options));
        let chunks: Result<Vec<Bytes>, _> = chunks.try_collect().await;
        let chunks = chunks.map_err(|source| EngineError::engine(action.to_owned(), source))?;
        Ok(chunks.concat())
    }

    /// Whether a sign is up.
    pub(super) async fn is_up(&self, place: &Place, path: &str) -> Result<bool, EdgeError> {
        match place {
            Place::Folder(folder) => {
                let path = path.to_owned();
                local(folder, "look into", move |folder| Ok(signs::is_up(folder, &path))).await
            }
            Place::Volume => {
                let path = format!("{DATA}/{IN_VOLUME}/{path}");
                Ok(self.0.engine.holds_file(&self.name(), &path).await?)
            }
        }
    }

    /// Puts up signs, in this order. An edge that does not run is made to at the next call.
    pub(super) async fn write(&self, place: &Place, paths: Vec<String>) -> Result<(), EdgeError> {
        let folder = match place {
            Place::Folder(folder) => folder,
            Place::Volume => {
                let entry = |path: &String| render::entry(&format!("{IN_VOLUME}/{path}"));
                let files: Vec<ContainerFile> = paths.iter().map(entry).collect();
                let written = self.0.engine.upload(&self.name(), &files).await;
                return self.checked(written).await;
            }
        };
        local(folder, "write into", move |folder| signs::put_up(folder, &paths)).await?;
        let answered = self.ask().await;
        if answered.is_err() {
            *self.0.ready.lock().await = None;
        }
        answered
    }

    /// After a failure the container is looked at again; one that is gone is made anew at the next call.
    pub(super) async fn checked(&self, result: Result<(), EngineError>) -> Result<(), EdgeError> {
        let Err(error) = result else {
            return Ok(());
        };
        *self.0.ready.lock().await = None;
        if self.0.engine.find_container(&self.name()).await?.is_none() {
            return Err(EdgeError::Retry {
                what: error.to_string(),
                source: error.source,
            });
        }
        Err(error.into())
    }

    /// Which flags choose other ports.
    fn explain(&self, error: EngineError) -> EdgeError {
        if error.fault != EngineFault::PortTaken {
            return error.into();
        }
        let EdgeSettings {
            http_port,
            https_port,
            ..
        } = self.0.settings;
        EdgeError::Fatal {
            code: error.code(),
            what: format!("failed to start the edge: port {http_port} or {https_port} is taken"),
            hint: Some("choose others with `--edge-http-port` and `--edge-https-port`".to_owned()),
            source: error.source,
        }
    }
}

/// Works in the folder, beside the requests of others.
async fn local<T: Send + 'static>(
    folder: &Path,
    action: &str,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, EdgeError> {
    let path: PathBuf = folder.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    let done = done.map_err(std::io::Error::other).flatten();
    done.map_err(|source| EdgeError::Retry {
        what: format!("failed to {action} the edge's folder `{}`", folder.display()),
        source: Some(Box::new(source)),
    })
}
