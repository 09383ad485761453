//! What a cluster is made of.

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches};

/// The command line's option for further lines of each member's conf, for [`Options::with_arguments`].
pub fn conf_argument() -> Arg {
    Arg::new("conf")
        .long("conf")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("A line more in each member's conf")
}

/// What a member may log in a test, whose faults are a few dozen at most.
const LOG_MAX: u64 = 2 << 20;

/// Where a member runs.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its address for clients and members.
    pub host: String,
    /// Words in front of its command line, such as those that enter a network namespace.
    pub enter: Vec<String>,
}

impl Default for Site {
    fn default() -> Site {
        Site {
            host: "127.0.0.1".to_owned(),
            enter: Vec::new(),
        }
    }
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Members of the group.
    pub members: usize,
    /// Nameservers.
    pub nameservers: usize,
    /// Segment size; small, so that a test fills several.
    pub segment_bytes: u64,
    /// Whether whoever leads is reached over one address (`leaderEndpoint`).
    pub leader_endpoint: bool,
    /// Further lines of each member's conf.
    pub conf: Vec<(String, String)>,
    /// Where each member runs; members beyond the list run here.
    pub sites: Vec<Site>,
    /// The address by which members and clients reach the nameservers.
    pub nameserver_host: String,
    /// Gives each member's store a file system of its own with so many bytes.
    pub disk_bytes: Option<u64>,
    /// Most bytes of log that a member writes if nothing goes round in a circle.
    pub log_bytes_max: u64,
    /// Lets a test make the flushes of members slow or fail and shift their clocks, see [`Library`].
    pub faulty: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            members: 3,
            nameservers: 1,
            segment_bytes: 16 << 20,
            leader_endpoint: false,
            conf: Vec::new(),
            sites: Vec::new(),
            nameserver_host: Site::default().host,
            disk_bytes: None,
            log_bytes_max: LOG_MAX,
            faulty: false,
        }
    }
}

impl Options {
    /// One member only.
    pub fn single() -> Options {
        Options {
            members: 1,
            ..Options::default()
        }
    }

    /// Adds a line to each member's conf.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Options {
        self.conf.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds the lines that the command line asks for ([`conf_argument`]).
    pub fn with_arguments(mut self, matches: &ArgMatches) -> Result<Options> {
        for line in matches.get_many::<String>("conf").into_iter().flatten() {
            let pair = line.split_once('=');
            let (key, value) = pair.with_context(|| format!("--conf {line}: not KEY=VALUE"))?;
            self = self.with(key, value);
        }
        Ok(self)
    }
}
