//! The command line as the original's tools read and describe it: short and long options after one or
//! two dashes, required options, groups of which exactly one is to be given, and help texts in the same
//! words and layout. Pure.

use std::collections::BTreeMap;
use std::fmt;

/// Widest line of a help text.
const HELP_WIDTH: usize = 110;

/// One option of a command.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Name after one dash; empty for an option with a long name only.
    pub short: &'static str,
    /// Name after two dashes (one is accepted too).
    pub long: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
    /// What it means, for the help.
    pub description: &'static str,
    /// Whether it may be left out.
    pub need: Need,
}

/// Whether an option must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// May be left out.
    Optional,
    /// Must be given.
    Required,
    /// Exactly one of all options marked so must be given.
    OneOf,
}

impl Opt {
    /// An option with a value.
    #[must_use]
    pub const fn value(
        short: &'static str,
        long: &'static str,
        need: Need,
        description: &'static str,
    ) -> Opt {
        Opt {
            short,
            long,
            takes_value: true,
            description,
            need,
        }
    }

    /// An option without a value.
    #[must_use]
    pub const fn flag(short: &'static str, long: &'static str, description: &'static str) -> Opt {
        Opt {
            short,
            long,
            takes_value: false,
            description,
            need: Need::Optional,
        }
    }

    fn key(&self) -> &'static str {
        if self.short.is_empty() {
            self.long
        } else {
            self.short
        }
    }

    fn usage(&self) -> String {
        let dashes = if self.short.is_empty() { "--" } else { "-" };
        let value = if self.takes_value { " <arg>" } else { "" };
        format!("{dashes}{}{value}", self.key())
    }
}

/// Options that every command of `mqadmin` has.
pub const COMMON: [Opt; 2] = [
    Opt::flag("h", "help", "Print help"),
    Opt::value(
        "n",
        "namesrvAddr",
        Need::Optional,
        "Name server address list, eg: '192.168.0.1:9876;192.168.0.2:9876'",
    ),
];

/// The options given on a command line.
#[derive(Clone, Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, String>,
}

impl Given {
    /// The value of the option with this short name (long name where it has no short one), without
    /// blanks around it.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.trim())
    }

    /// Whether the option was given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The value read as a number, `default` when the option was not given.
    ///
    /// # Errors
    /// When the value is not such a number; the text names the option.
    pub fn number<N: std::str::FromStr>(&self, key: &str, default: N) -> anyhow::Result<N> {
        match self.value(key) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) => Ok(number),
                Err(_) => anyhow::bail!("option -{key} {text} is not a valid number"),
            },
        }
    }

    /// The value read as Java's `Boolean.parseBoolean` does: true only for "true" in any case.
    #[must_use]
    pub fn truth(&self, key: &str) -> bool {
        self.value(key)
            .is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }
}

/// Why a command line was refused, in the original's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Reads the arguments that follow the command's name.
///
/// # Errors
/// For an unknown option, a missing value, two options of the group, a missing required option, in this
/// order of checks.
pub fn parse(options: &[Opt], arguments: &[String]) -> Result<Given, Refused> {
    let mut given = Given::default();
    let mut chosen: Option<&Opt> = None;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
            // As in the original: a stray word ends the options and is ignored with what follows.
            break;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.is_empty() {
            break;
        }
        let (name, mut value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(option) = find(options, name) else {
            return Err(Refused(format!("Unrecognized option: {argument}")));
        };
        if option.takes_value {
            if value.is_none() {
                let next = arguments.as_slice().first();
                if next.is_some_and(|next| !looks_like_option(options, next)) {
                    value = arguments.next().cloned();
                }
            }
            if value.is_none() {
                return Err(Refused(format!(
                    "Missing argument for option: {}",
                    option.key()
                )));
            }
        } else if value.is_some() {
            return Err(Refused(format!("Unrecognized option: {argument}")));
        }
        if option.need == Need::OneOf {
            if let Some(earlier) = chosen.filter(|earlier| earlier.key() != option.key()) {
                return Err(Refused(format!(
                    "The option '{}' was specified but an option from this group has already been \
                     selected: '{}'",
                    option.key(),
                    earlier.key()
                )));
            }
            chosen = Some(option);
        }
        given.values.insert(option.key(), value.unwrap_or_default());
    }
    if given.has("h") {
        return Ok(given);
    }
    let missing = missing(options, &given);
    match missing.as_slice() {
        [] => Ok(given),
        [one] => Err(Refused(format!("Missing required option: {one}"))),
        more => Err(Refused(format!(
            "Missing required options: {}",
            more.join(", ")
        ))),
    }
}

fn find<'a>(options: &'a [Opt], name: &str) -> Option<&'a Opt> {
    options
        .iter()
        .find(|option| (!option.short.is_empty() && option.short == name) || option.long == name)
}

/// A value may begin with a dash (a negative number) unless it names an option.
fn looks_like_option(options: &[Opt], argument: &str) -> bool {
    let Some(name) = argument.strip_prefix('-') else {
        return false;
    };
    let name = name.strip_prefix('-').unwrap_or(name);
    find(options, name.split_once('=').map_or(name, |(name, _)| name)).is_some()
}

fn missing(options: &[Opt], given: &Given) -> Vec<String> {
    let mut missing = Vec::new();
    let group: Vec<&Opt> = options
        .iter()
        .filter(|option| option.need == Need::OneOf)
        .collect();
    if !group.is_empty() && !group.iter().any(|option| given.has(option.key())) {
        let names: Vec<String> = group
            .iter()
            .map(|option| format!("-{} {}", option.key(), option.description))
            .collect();
        missing.push(format!("[{}]", names.join(", ")));
    }
    let required = options
        .iter()
        .filter(|option| option.need == Need::Required);
    missing.extend(
        required
            .filter(|option| !given.has(option.key()))
            .map(|option| option.key().to_owned()),
    );
    missing
}

/// The help text of a command, each line with its end.
#[must_use]
pub fn help(command_line: &str, options: &[Opt]) -> String {
    let mut sorted: Vec<&Opt> = options.iter().collect();
    sorted.sort_by_key(|option| option.key().to_lowercase());

    let mut usage = format!("usage: {command_line} ");
    let mut group_done = false;
    for (index, option) in sorted.iter().enumerate() {
        match option.need {
            Need::Required => usage.push_str(&option.usage()),
            Need::Optional => usage.push_str(&format!("[{}]", option.usage())),
            Need::OneOf if !group_done => {
                group_done = true;
                let members: Vec<String> = sorted
                    .iter()
                    .filter(|option| option.need == Need::OneOf)
                    .map(|option| option.usage())
                    .collect();
                usage.push_str(&members.join(" | "));
            }
            Need::OneOf => {}
        }
        if index + 1 < sorted.len() {
            usage.push(' ');
        }
    }
    let mut text = String::new();
    push_wrapped(&mut text, &usage, "usage: ".len());

    let names: Vec<String> = sorted
        .iter()
        .map(|option| {
            let value = if option.takes_value { " <arg>" } else { "" };
            if option.short.is_empty() {
                format!("    --{}{value}", option.long)
            } else {
                format!(" -{},--{}{value}", option.short, option.long)
            }
        })
        .collect();
    let widest = names.iter().map(String::len).max().unwrap_or(0);
    for (name, option) in names.iter().zip(&sorted) {
        let line = format!("{name:<widest$}   {}", option.description);
        push_wrapped(&mut text, &line, widest + 3);
    }
    text
}

/// Adds `line`, broken at blanks so that nothing is wider than the help; what follows a break is
/// indented.
fn push_wrapped(text: &mut String, line: &str, indent: usize) {
    let mut rest = line.to_owned();
    loop {
        if rest.len() <= HELP_WIDTH {
            text.push_str(rest.trim_end());
            text.push('\n');
            return;
        }
        // Help texts are ASCII, so that any index is a character's.
        let end = rest[..=HELP_WIDTH]
            .rfind(' ')
            .filter(|end| *end > indent)
            .unwrap_or(HELP_WIDTH);
        text.push_str(rest[..end].trim_end());
        text.push('\n');
        rest = format!("{:indent$}{}", "", rest[end..].trim_start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [Opt; 5] = [
        Opt::flag("h", "help", "Print help"),
        Opt::value("b", "brokerAddr", Need::OneOf, "to which broker"),
        Opt::value("c", "clusterName", Need::OneOf, "to which cluster"),
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::flag("l", "list", "Use list format"),
    ];

    fn parse_words(words: &str) -> Result<Given, String> {
        let words: Vec<String> = words.split_whitespace().map(ToOwned::to_owned).collect();
        parse(&OPTIONS, &words).map_err(|refused| refused.to_string())
    }

    #[test]
    fn short_and_long_names_take_values() {
        for line in [
            "-t T -b h:1",
            "--topic T -brokerAddr h:1",
            "--topic=T -b=h:1",
        ] {
            let given = parse_words(line).unwrap();
            assert_eq!(
                (given.value("t"), given.value("b")),
                (Some("T"), Some("h:1")),
                "{line}"
            );
            assert!(!given.has("l"));
        }
        assert!(parse_words("-t T -c C -l").unwrap().has("l"));
        assert_eq!(parse_words("-t -1 -c C").unwrap().value("t"), Some("-1"));
    }

    #[test]
    fn refusals_have_the_original_s_words() {
        let refused = |line| parse_words(line).unwrap_err();
        assert_eq!(refused("-t"), "Missing argument for option: t");
        assert_eq!(refused("-t -c C"), "Missing argument for option: t");
        assert_eq!(refused("-b h:1"), "Missing required option: t");
        assert_eq!(
            refused("-l"),
            "Missing required options: [-b to which broker, -c to which cluster], t"
        );
        assert_eq!(refused("-t T -x"), "Unrecognized option: -x");
        assert_eq!(
            refused("-t T -b 1 -c 2"),
            "The option 'c' was specified but an option from this group has already been selected: 'b'"
        );
    }

    #[test]
    fn help_needs_nothing_else() {
        assert!(parse_words("-h").unwrap().has("h"));
    }

    #[test]
    fn numbers_are_checked_and_named() {
        let given = parse_words("-t 12 -c x").unwrap();
        assert_eq!(given.number("t", 0).unwrap(), 12);
        assert_eq!(given.number("l", 7).unwrap(), 7);
        assert_eq!(
            given.number("c", 0).unwrap_err().to_string(),
            "option -c x is not a valid number"
        );
    }

    #[test]
    fn help_is_laid_out_as_the_original_s() {
        assert_eq!(
            help("mqadmin x", &OPTIONS),
            "usage: mqadmin x -b <arg> | -c <arg>  [-h] [-l] -t <arg>\n \
             -b,--brokerAddr <arg>    to which broker\n \
             -c,--clusterName <arg>   to which cluster\n \
             -h,--help                Print help\n \
             -l,--list                Use list format\n \
             -t,--topic <arg>         topic name\n"
        );
    }
}
