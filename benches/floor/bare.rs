//! The least that a program with a parsed command line can do, and nothing else: the floor of starting a command.

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bare", version, about = "A bare command line")]
struct Cli {
    #[command(subcommand)]
    command: Option<Topic>,
}

#[derive(Subcommand)]
enum Topic {
    /// About tenants
    Tenant {
        #[command(subcommand)]
        command: Verb,
    },
}

#[derive(Subcommand)]
enum Verb {
    /// Print the file with the list
    List {
        #[arg(long)]
        json: bool,
        #[arg(long)]
        file: std::path::PathBuf,
    },
}

fn main() -> std::io::Result<()> {
    let Some(Topic::Tenant {
        command: Verb::List { json: _, file },
    }) = Cli::parse().command
    else {
        return Ok(());
    };
    let list: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    serde_json::to_writer(std::io::stdout().lock(), &list)?;
    Ok(())
}
