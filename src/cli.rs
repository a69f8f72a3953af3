//! The command line: commands with one result, one line per failure, and an exit code.
//!
//! Results go to standard output, everything else to standard error. The public modules are shared with the load generator
//! (`benches/load`).

mod check;
mod dev;
mod explain;
pub mod failure;
pub mod output;
pub mod publish;
mod reach;
pub mod serve;
pub mod settings;
mod tail;
pub mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Realtime gateway: backends publish over gRPC, the members of a room receive over WebSockets.
#[derive(Debug, Parser)]
#[command(name = "roomcast", version, max_term_width = 100, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused: a wrong configuration, a refused event, a denied action
  2  the command line cannot be read
  3  failed: no reply, an unreadable file, an address in use";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Dev(dev::Dev),
    Check(check::Check),
    Print(check::Print),
    Schema(check::Schema),
    Token(token::Token),
    Publish(publish::Publish),
    Tail(tail::Tail),
    Explain(explain::Explain),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => block_on(serve.run()),
        Command::Dev(dev) => block_on(dev.run()),
        Command::Check(check) => check.run(),
        Command::Print(print) => print.run(),
        Command::Schema(schema) => schema.run(),
        Command::Token(token) => token.run(),
        Command::Publish(publish) => block_on(publish.run()),
        Command::Tail(tail) => block_on(tail.run()),
        Command::Explain(explain) => block_on(explain.run()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a command that waits for the network. One thread is enough: a gateway's clients have threads of their own, and a
/// gRPC call costs half as much without work stealing.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| Failure::Undone(format!("cannot start: {error}")))?
        .block_on(command)
}
