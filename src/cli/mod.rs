//! The terminal: one file per command; `ui` is the only writer.
//!
//! The command line is parsed before anything else is touched: no runtime, no file, no environment.

pub mod audit;
pub mod checklist;
mod ci_identity;
pub mod completions;
pub mod context;
pub mod deploy;
pub mod doctor;
pub mod error;
pub mod follow;
pub mod identities;
pub mod init;
pub mod keys;
pub mod login;
pub mod logout;
pub mod operation;
pub mod reconcile;
pub mod releases;
pub mod rollback;
pub mod secrets;
pub mod serve;
pub mod server;
pub mod services;
pub mod session;
pub mod sessions;
pub mod tenant;
pub mod ui;
pub mod whoami;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::context::{Context, GlobalArgs};
use crate::cli::error::{CliError, Kind};

/// Isolated stacks for customer projects: create one, deploy to it, look after it
#[derive(Debug, Parser)]
#[command(
    name = "systemprompt",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a server
    Login(login::Args),
    /// Sign out: revoke the session and forget it on this machine
    Logout(logout::Args),
    /// Show who is signed in, where, and for how long
    Whoami(whoami::Args),
    /// List the programs and browsers that are signed in, and sign them out
    Sessions(sessions::Args),
    /// List who of other providers lets in to the account, and take one away
    Identities(identities::Args),
    /// Create, look at, change and delete tenants
    Tenant(tenant::Args),
    /// Build this project's image, push it and release it on a tenant
    Deploy(deploy::Args),
    /// List a tenant's releases, look at one, keep its image
    Releases(releases::Args),
    /// Restore an earlier release whole, as a new one
    Rollback(rollback::Args),
    /// Set, import, list and remove a tenant's secrets
    Secrets(secrets::Args),
    /// See who did what, and verify that nothing of it was changed
    Audit(audit::Args),
    /// Look at one piece of work of a server, retry it or give it up
    Operation(operation::Args),
    /// Write the `.systemprompt` folder into this project
    Init(init::Args),
    /// Check everything that deploying needs, and say how to mend what is missing
    Doctor(doctor::Args),
    /// Run the management API
    Serve(Box<serve::Args>),
    /// Look after the management API's own data
    Server(server::Args),
    /// Run inside a tenant: serve the project, migrate its database
    Services(services::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
}

impl Command {
    /// Whether the command ends itself in good order when it is told to stop.
    const fn stops_itself(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Services(_))
    }

    /// Whether it has work for several processors; for the others, starting threads would be most of what they do.
    const fn works_in_parallel(&self) -> bool {
        self.stops_itself() || matches!(self, Self::Deploy(_) | Self::Server(_))
    }
}

/// Parses the command line, runs the command, answers its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = without_cloud(std::env::args_os().collect());
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, wants_json),
    };
    if let Command::Completions(args) = &cli.command {
        return completions::run(args);
    }
    let context = Context::new(cli.global);
    let outcome = block_on(&context, cli.command);
    context.ui().finish(outcome)
}

/// Address space of a worker; what is not used costs no memory.
const WORKER_STACK_BYTES: usize = 8 * 1024 * 1024;

fn block_on(context: &Context, command: Command) -> Result<(), CliError> {
    // Two TLS providers may be compiled in; the one that is meant is named before the first connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = if command.works_in_parallel() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder
        // An unoptimised build keeps a step's whole chain of calls on the stack, down to the engine's answers.
        .thread_stack_size(WORKER_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start the async runtime").because(error))?;
    let outcome = runtime.block_on(async {
        if command.stops_itself() {
            return run(context, command).await;
        }
        tokio::select! {
            outcome = run(context, command) => outcome,
            () = told_to_stop() => Err(context.interrupted()),
        }
    });
    // A prompt may still wait for a key on its own thread; it ends with the process.
    runtime.shutdown_background();
    outcome
}

/// Ctrl-C, or the polite signal of whoever manages this process: both leave the terminal in order.
async fn told_to_stop() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

async fn run(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Login(args) => login::run(context, args).await,
        Command::Logout(args) => logout::run(context, args).await,
        Command::Whoami(args) => whoami::run(context, args).await,
        Command::Sessions(args) => sessions::run(context, args).await,
        Command::Identities(args) => identities::run(context, args).await,
        Command::Tenant(args) => tenant::run(context, args).await,
        Command::Deploy(args) => deploy::run(context, args).await,
        Command::Releases(args) => releases::run(context, args).await,
        Command::Rollback(args) => rollback::run(context, args).await,
        Command::Secrets(args) => secrets::run(context, args).await,
        Command::Audit(args) => audit::run(context, args).await,
        Command::Operation(args) => operation::run(context, args).await,
        Command::Init(args) => init::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Serve(args) => serve::run(context, *args).await,
        Command::Server(args) => server::run(context, args).await,
        Command::Services(args) => services::run(context, args).await,
        Command::Completions(_) => Ok(()),
    }
}

/// `systemprompt cloud tenant` is `systemprompt tenant`: the first word may be `cloud`.
fn without_cloud(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        if argument == "cloud" {
            arguments.remove(at);
            break;
        }
        if !argument.starts_with('-') {
            break;
        }
        let has_value = ["--server", "--ca-file", "--profile"].contains(&argument);
        at += if has_value { 2 } else { 1 };
    }
    arguments
}

/// Prints what clap has to say: help and version on stdout, refusals on stderr.
fn refused(error: &clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let message = text.trim().trim_start_matches("error: ");
        let document = CliError::usage(message.split("\n\n").next().unwrap_or(message)).document();
        let _ = writeln!(std::io::stderr(), "{document}");
    } else {
        let _ = error.print();
    }
    if error.use_stderr() {
        ExitCode::from(Kind::Usage.exit_code())
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, without_cloud};
    use clap::CommandFactory as _;

    fn strip(arguments: &[&str]) -> Vec<String> {
        without_cloud(arguments.iter().map(Into::into).collect())
            .into_iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn cloud_is_a_prefix_of_every_command() {
        assert_eq!(
            strip(&["systemprompt", "cloud", "tenant"]),
            ["systemprompt", "tenant"]
        );
        assert_eq!(
            strip(&["systemprompt", "--server", "cloud", "cloud", "login"]),
            ["systemprompt", "--server", "cloud", "login"]
        );
        assert_eq!(
            strip(&["systemprompt", "tenant", "show", "cloud"]),
            ["systemprompt", "tenant", "show", "cloud"]
        );
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_help_and_takes_json() {
        fn visit(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "`{path}` has no help text");
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "`{path}`: `{id}` has no help text");
            }
            let json = command
                .get_arguments()
                .any(|argument| argument.get_id() == "json");
            assert!(json, "`{path}` does not take --json");
            for child in command
                .get_subcommands()
                .filter(|child| child.get_name() != "help")
            {
                visit(child, &format!("{path} {}", child.get_name()));
            }
        }
        let mut root = Cli::command();
        root.build();
        visit(&root, "systemprompt");
    }
}
