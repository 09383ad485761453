//! The command line of `mqbroker`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

/// What the command line asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `-c`, once for each group of which this process runs a member; none: one member with all defaults.
    pub files: Vec<PathBuf>,
    /// `-n`: nameserver addresses, `;` between them; they replace those of the file.
    pub namesrv: Option<String>,
    /// `-p` or `-m`: print instead of starting.
    pub print: Option<Print>,
}

/// What to print instead of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Print {
    /// Every key.
    All,
    /// The keys that are obeyed.
    Important,
}

/// Reads the arguments, without the program's name first.
///
/// # Errors
/// A text for the terminal: help that was asked for, or what is wrong. [`clap::Error::exit`] prints it.
pub fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Options, clap::Error> {
    let program = std::ffi::OsString::from("mqbroker");
    let matches = command().try_get_matches_from(std::iter::once(program).chain(arguments))?;
    let print = match (matches.get_flag("all"), matches.get_flag("important")) {
        (true, _) => Some(Print::All),
        (false, true) => Some(Print::Important),
        (false, false) => None,
    };
    Ok(Options {
        files: matches
            .get_many::<PathBuf>("file")
            .map(|files| files.cloned().collect())
            .unwrap_or_default(),
        namesrv: matches.get_one::<String>("namesrv").cloned(),
        print,
    })
}

fn command() -> Command {
    Command::new("mqbroker")
        .about("Runs a member of a broker group, or of several groups")
        .arg(
            Arg::new("file")
                .short('c')
                .long("configFile")
                .value_name("file")
                .value_parser(clap::value_parser!(PathBuf))
                .action(ArgAction::Append)
                .help("Broker configuration file (properties); once for each group that this process has a member of"),
        )
        .arg(
            Arg::new("namesrv")
                .short('n')
                .long("namesrvAddr")
                .value_name("addresses")
                .help("Nameserver addresses, such as 192.168.0.1:9876;192.168.0.2:9876"),
        )
        .arg(
            Arg::new("all")
                .short('p')
                .long("printConfigItem")
                .action(ArgAction::SetTrue)
                .help("Print every configuration key with its effective value, and exit"),
        )
        .arg(
            Arg::new("important")
                .short('m')
                .long("printImportantConfig")
                .action(ArgAction::SetTrue)
                .help("Print the configuration keys that are obeyed with their effective values, and exit"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, clap::Error> {
        parse(line.split_whitespace().map(std::ffi::OsString::from))
    }

    #[test]
    fn reads_the_options_of_the_original() {
        assert_eq!(
            options("-c conf/b.conf -n a:1;b:2 -p").unwrap(),
            Options {
                files: vec!["conf/b.conf".into()],
                namesrv: Some("a:1;b:2".into()),
                print: Some(Print::All)
            }
        );
        let several = options("-c a.conf -c b.conf").unwrap().files;
        assert_eq!(several, [PathBuf::from("a.conf"), "b.conf".into()]);
        assert_eq!(options("-m").unwrap().print, Some(Print::Important));
        assert_eq!(options("").unwrap(), Options::default());
        assert!(options("-h").is_err_and(|error| !error.use_stderr()));
        assert!(options("-x").is_err_and(|error| error.use_stderr()));
    }
}
