//! The Compose file of a local database: written as text, read back as data.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::api::secret::SecretText;
use crate::image::database::{LocalDatabase, folder};
use crate::image::error::ImageError;

/// The one service.
pub(super) const SERVICE: &str = "postgres";
/// Where the server keeps its data; above the data directory, so that the mount's own files are not in its way.
pub(super) const DATA_DIRECTORY: &str = "/var/lib/postgresql/data";

pub(super) fn text(database: &LocalDatabase) -> String {
    let LocalDatabase {
        name,
        project,
        image,
        port,
        ..
    } = database;
    format!(
        r#"# PostgreSQL of the local tenant `{name}`; its password is in {name}.env beside this file.
# `docker compose -f .systemprompt/docker/{name}.yaml ps` works too.
name: {project}
services:
  {SERVICE}:
    image: {image}
    restart: unless-stopped
    environment:
      POSTGRES_USER: app
      POSTGRES_DB: app
    env_file:
      - {name}.env
    ports:
      - "127.0.0.1:{port}:5432"
    volumes:
      - data:{DATA_DIRECTORY}
volumes:
  data:
"#
    )
}

/// What Compose compares to see whether a container is still as the file says.
pub(super) fn config_hash(database: &LocalDatabase) -> String {
    hex::encode(Sha256::digest(text(database).as_bytes()))
}

pub(super) fn read(root: &Path, name: &str) -> Result<Option<LocalDatabase>, ImageError> {
    let path = folder(root).join(format!("{name}.yaml"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::file("read", path)(error)),
    };
    let shown = format!(".systemprompt/docker/{name}.yaml");
    let mistake = |line: usize, what: String| ImageError::Mistake {
        path: shown.clone(),
        line,
        what,
        hint: format!(
            "mend the file, or remove it and run `systemprompt tenant create --local {name}` again"
        ),
    };
    let file: ComposeFile = serde_saphyr::from_str(&text).map_err(|error| {
        let line = error
            .location()
            .map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
        mistake(line, error.to_string())
    })?;
    let port = file
        .services
        .postgres
        .ports
        .iter()
        .find_map(|port| {
            port.strip_prefix("127.0.0.1:")?
                .strip_suffix(":5432")?
                .parse()
                .ok()
        })
        .ok_or_else(|| {
            let line = 1 + text
                .lines()
                .position(|line| line.contains("ports:"))
                .unwrap_or_default();
            mistake(line, "no port of the form \"127.0.0.1:<port>:5432\"".to_owned())
        })?;
    Ok(Some(LocalDatabase {
        name: name.to_owned(),
        project: file.name,
        image: file.services.postgres.image,
        port,
        password: read_password(root, name)?,
        root: root.to_owned(),
    }))
}

fn read_password(root: &Path, name: &str) -> Result<SecretText, ImageError> {
    let path = folder(root).join(format!("{name}.env"));
    let text = std::fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("POSTGRES_PASSWORD="))
        .map(SecretText::new)
        .ok_or_else(|| ImageError::Mistake {
            path: format!(".systemprompt/docker/{name}.env"),
            line: 1,
            what: "no line `POSTGRES_PASSWORD=…`".to_owned(),
            hint: "take the password from `database_url` in the profile's secrets.json".to_owned(),
        })
}

#[derive(Deserialize)]
struct ComposeFile {
    name: String,
    services: Services,
}

#[derive(Deserialize)]
struct Services {
    postgres: Service,
}

#[derive(Deserialize)]
struct Service {
    image: String,
    ports: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{LocalDatabase, read, text};
    use crate::api::secret::SecretText;

    fn database(root: &std::path::Path) -> LocalDatabase {
        LocalDatabase {
            name: "dev".to_owned(),
            project: "systemprompt-dev-0a1b2c".to_owned(),
            image: "postgres:16-alpine".to_owned(),
            port: 54321,
            password: SecretText::new("swordfish"),
            root: root.to_owned(),
        }
    }

    fn write(path: &std::path::Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
        std::fs::File::create(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("a file");
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let root = tempfile::tempdir().expect("a folder");
        let database = database(root.path());
        write(&database.compose_path(), &database.compose_text());
        write(&database.environment_path(), database.environment_text().expose());
        let back = read(root.path(), "dev")
            .expect("both files are right")
            .expect("there is one");
        assert_eq!(back, database);
        assert_eq!(
            back.url().expose(),
            "postgresql://app:swordfish@127.0.0.1:54321/app"
        );
        assert_eq!(read(root.path(), "other").expect("nothing is wrong"), None);
    }

    #[test]
    fn the_compose_file_holds_no_secret() {
        assert!(!text(&database(std::path::Path::new("/"))).contains("swordfish"));
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let root = tempfile::tempdir().expect("a folder");
        let database = database(root.path());
        let broken = database.compose_text().replace("127.0.0.1:", "");
        write(&database.compose_path(), &broken);
        write(&database.environment_path(), database.environment_text().expose());
        let error = read(root.path(), "dev").expect_err("the port is not published on loopback");
        assert!(
            error
                .to_string()
                .starts_with(".systemprompt/docker/dev.yaml:13: no port"),
            "{error}"
        );
        write(&database.compose_path(), "name: [\n");
        let error = read(root.path(), "dev").expect_err("not YAML");
        assert!(
            error.to_string().starts_with(".systemprompt/docker/dev.yaml:"),
            "{error}"
        );
    }
}
