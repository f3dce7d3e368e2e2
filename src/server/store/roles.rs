//! The two roles of a PostgreSQL installation: one that owns the tables and changes them, one that only works with them.

/// Names of the roles and of the database.
#[derive(Clone, Debug)]
pub struct Roles {
    /// Owns the tables: `systemprompt server migrate up` runs with it.
    pub owner: String,
    /// Works with them: `systemprompt serve` runs with it.
    pub app: String,
    /// The database.
    pub database: String,
}

impl Roles {
    /// What a superuser feeds to `psql`, once. It may be run again on roles and a database that are there.
    #[must_use]
    pub fn sql(&self) -> String {
        let (owner, app, database) = (quoted(&self.owner), quoted(&self.app), quoted(&self.database));
        let make = |name: &str, role: &str| {
            format!(
                "SELECT 'CREATE ROLE {} LOGIN'\n    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{}') \\gexec",
                role.replace('\'', "''"),
                name.replace('\'', "''")
            )
        };
        format!(
            "-- For a superuser: psql --file roles.sql. Then set the passwords: \\password {owner_name}, \\password {app_name}\n\
             {make_owner}\n\
             {make_app}\n\
             SELECT 'CREATE DATABASE {database_text} OWNER {owner_text}'\n    \
                 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database_name}') \\gexec\n\
             ALTER DATABASE {database} OWNER TO {owner};\n\
             REVOKE ALL ON DATABASE {database} FROM PUBLIC;\n\
             GRANT CONNECT ON DATABASE {database} TO {app};\n\
             \\connect {database}\n\
             ALTER SCHEMA public OWNER TO {owner};\n\
             REVOKE ALL ON SCHEMA public FROM PUBLIC;\n\
             GRANT USAGE ON SCHEMA public TO {app};\n\
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app};\n\
             ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public\n    \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};\n",
            owner_name = self.owner,
            app_name = self.app,
            make_owner = make(&self.owner, &owner),
            make_app = make(&self.app, &app),
            database_text = database.replace('\'', "''"),
            owner_text = owner.replace('\'', "''"),
            database_name = self.database.replace('\'', "''"),
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether PostgreSQL takes it as a name as it stands, and a person can read it.
///
/// # Errors
/// It is something else.
pub fn check_name(name: &str) -> Result<String, String> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    if first && rest && name.len() <= 63 {
        return Ok(name.to_owned());
    }
    Err("a name has at most 63 of a-z, 0-9, `_` and `-`, and begins with a letter".to_owned())
}
