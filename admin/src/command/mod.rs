//! The commands of `mqadmin`. Each module holds one: its options, what it asks and how it prints.

mod broker_status;
mod clean_expired_cq;
mod clean_unused_topic;
mod cluster_list;
mod clusters;
mod consumer_progress;
mod delete_expired_commit_log;
mod delete_topic;
mod members;
mod message_text;
mod query_msg_by_id;
mod query_msg_by_key;
mod query_msg_by_offset;
mod query_msg_by_unique_key;
mod topic_list;
mod topic_route;
mod topic_status;
mod tracks;
mod transfer_leader;
mod update_topic;

use std::fmt::Write as _;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;

use raftmq_client::{Admin, Error};

use crate::options::{COMMON, Given, Need, Opt};

/// Extra of ours on every command.
const JSON: Opt = Opt {
    short: "",
    long: "json",
    takes_value: false,
    description: "Print JSON instead of a table",
    need: Need::Optional,
};

/// One command.
#[derive(Clone, Copy)]
pub struct Command {
    /// Name on the command line, matched in any case.
    pub name: &'static str,
    /// The original's class, which its failure texts name.
    pub class: &'static str,
    /// One line for the list of commands.
    pub description: &'static str,
    /// Options of its own.
    own_options: &'static [Opt],
    run: for<'a> fn(Call<'a>) -> Running<'a>,
}

/// What a command gets.
pub(crate) struct Call<'a> {
    pub(crate) given: &'a Given,
    pub(crate) admin: &'a Admin,
    pub(crate) out: &'a mut (dyn Write + Send),
}

impl Call<'_> {
    /// Prints the value as JSON and tells whether JSON was asked for.
    pub(crate) fn json(
        &mut self,
        make: impl FnOnce() -> serde_json::Value,
    ) -> anyhow::Result<bool> {
        if !self.given.has("json") {
            return Ok(false);
        }
        writeln!(self.out, "{:#}", make())?;
        Ok(true)
    }
}

pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// All commands, in the original's order; ours behind them.
#[must_use]
pub fn all() -> Vec<Command> {
    let mut all = vec![
        update_topic::COMMAND,
        delete_topic::COMMAND,
        topic_route::COMMAND,
        topic_status::COMMAND,
        broker_status::COMMAND,
        query_msg_by_id::COMMAND,
        query_msg_by_key::COMMAND,
        query_msg_by_unique_key::COMMAND,
        query_msg_by_offset::COMMAND,
        consumer_progress::COMMAND,
        cluster_list::COMMAND,
        topic_list::COMMAND,
        clean_expired_cq::COMMAND,
        delete_expired_commit_log::COMMAND,
        clean_unused_topic::COMMAND,
        transfer_leader::COMMAND,
    ];
    all.extend(members::COMMANDS);
    all
}

/// The command of this name.
#[must_use]
pub fn find(name: &str) -> Option<Command> {
    all()
        .into_iter()
        .find(|command| command.name.eq_ignore_ascii_case(name))
}

impl Command {
    /// All its options.
    #[must_use]
    pub fn options(&self) -> Vec<Opt> {
        let mut options = COMMON.to_vec();
        options.extend_from_slice(self.own_options);
        options.push(JSON);
        options
    }

    /// Its help text.
    #[must_use]
    pub fn help(&self) -> String {
        crate::options::help(&format!("mqadmin {}", self.name), &self.options())
    }

    /// Runs it.
    ///
    /// # Errors
    /// What went wrong, for a person, in one line.
    pub async fn run(
        &self,
        given: &Given,
        admin: &Admin,
        out: &mut (dyn Write + Send),
    ) -> anyhow::Result<()> {
        (self.run)(Call { given, admin, out }).await
    }
}

/// The text that `mqadmin` prints when called without arguments.
#[must_use]
pub fn overview() -> String {
    let mut text = "The most commonly used mqadmin commands are:\n".to_owned();
    for command in all() {
        // Writing to a String cannot fail.
        let _ignored: std::fmt::Result =
            writeln!(text, "   {:<35} {}", command.name, command.description);
    }
    text.push_str("\nSee 'mqadmin help <command>' for more information on a specific command.\n");
    text
}

/// A member's id as confs spell it, `n1`, or the number alone.
pub(crate) fn member_id(text: &str) -> anyhow::Result<u64> {
    let number = text.strip_prefix('n').unwrap_or(text);
    match number.parse() {
        Ok(id) => Ok(id),
        Err(_) => anyhow::bail!("option -i {text} is not a member id such as n1"),
    }
}

/// What went wrong, in one line.
#[must_use]
pub fn one_line(error: &anyhow::Error) -> String {
    let text = match error.downcast_ref::<Error>() {
        // An address tells which of several servers it was.
        Some(Error::Refused { address, .. }) if !address.is_empty() => {
            format!("{error} ({address})")
        }
        _ => format!("{error:#}"),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_any_case() {
        assert_eq!(
            find("CLUSTERLIST").map(|command| command.name),
            Some("clusterList")
        );
        assert!(find("clusterlists").is_none());
    }

    #[test]
    fn options_do_not_clash() {
        for command in all() {
            let mut names = Vec::new();
            for option in command.options() {
                names.extend([option.short, option.long].map(ToOwned::to_owned));
            }
            names.retain(|name| !name.is_empty());
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{}", command.name);
        }
    }

    #[test]
    fn help_of_a_wide_command_is_broken_as_in_the_original() {
        let help = find("updateTopic").unwrap().help();
        assert_eq!(
            help.lines().take(2).collect::<Vec<_>>(),
            [
                "usage: mqadmin updateTopic [-a <arg>] -b <arg> | -c <arg>  [-h] [--json] [-n <arg>] \
                 [-o <arg>] [-p <arg>] [-r",
                "       <arg>] [-s <arg>] -t <arg> [-u <arg>] [-w <arg>]",
            ]
        );
        assert!(help.contains("\n -c,--clusterName <arg>      create topic to which cluster\n"));
        assert!(help.contains("\n    --json                   Print JSON instead of a table\n"));
    }

    #[test]
    fn the_overview_has_the_original_s_form() {
        let overview = overview();
        assert!(overview.starts_with(
            "The most commonly used mqadmin commands are:\n   \
             updateTopic                         Update or create topic.\n"
        ));
        assert!(overview.ends_with(
            "updateMember                        Tell a broker group that a member is at another address now.\n\n\
             See 'mqadmin help <command>' for more information on a specific command.\n"
        ));
    }
}
