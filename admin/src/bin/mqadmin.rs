//! `mqadmin <command> [options]`: administers a cluster, with the original's commands and options.

use std::io::{self, Write};
use std::process::ExitCode;

use raftmq_admin::command::{self, one_line};
use raftmq_admin::options;
use raftmq_client::Admin;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let code = run(&arguments);
    // A reader that has gone (`| head`) is no failure of ours.
    drop(io::stdout().flush());
    code
}

fn run(arguments: &[String]) -> ExitCode {
    let mut out = io::stdout();
    let say = |text: &str| drop(write!(io::stdout(), "{text}"));
    let Some(first) = arguments.first() else {
        say(&command::overview());
        return ExitCode::SUCCESS;
    };
    let asks_help = first == "help" && arguments.len() == 2;
    let name = if asks_help { &arguments[1] } else { first };
    let Some(command) = command::find(name) else {
        say(&format!("The sub command {name} not exist.\n"));
        return ExitCode::FAILURE;
    };
    if asks_help {
        say(&command.help());
        return ExitCode::SUCCESS;
    }
    let given = match options::parse(&command.options(), &arguments[1..]) {
        Ok(given) if given.has("h") => {
            say(&command.help());
            return ExitCode::SUCCESS;
        }
        Ok(given) => given,
        Err(refused) => {
            eprintln!("{refused}");
            say(&command.help());
            return ExitCode::FAILURE;
        }
    };
    raftmq_admin::trace_to_stderr();
    let name_servers = raftmq_admin::name_servers(given.value("n"), "");
    let outcome = raftmq_admin::runtime().and_then(|runtime| {
        runtime.block_on(async {
            let admin = Admin::start(&name_servers)?;
            let outcome = command.run(&given, &admin, &mut out).await;
            admin.shutdown().await;
            outcome
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if raftmq_admin::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} command failed: {}", command.class, one_line(&error));
            ExitCode::FAILURE
        }
    }
}
