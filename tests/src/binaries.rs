//! The programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};

use anyhow::{Context, Result, bail, ensure};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `mqbroker`.
    pub broker: PathBuf,
    /// `mqnamesrv`.
    pub nameserver: PathBuf,
    /// `mqadmin`.
    pub admin: PathBuf,
}

impl Binaries {
    /// Takes the programs from `$RAFTMQ_BIN_DIR`; without it, builds them and takes them from the folder that this
    /// executable was built into. Built once per process; a build that is up to date costs a moment.
    pub fn locate() -> Result<&'static Binaries> {
        static FOUND: OnceLock<std::result::Result<Binaries, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
        found.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

fn find() -> Result<Binaries> {
    if let Some(folder) = std::env::var_os("RAFTMQ_BIN_DIR") {
        return in_folder(Path::new(&folder));
    }
    let executable = std::env::current_exe().context("where is this executable")?;
    // target/<profile>/deps/<test> or target/<profile>/<program>
    let folder = executable
        .ancestors()
        .skip(1)
        .find(|folder| folder.file_name().is_some_and(|name| name != "deps"))
        .context("this executable is in no folder")?;
    build(folder)?;
    in_folder(folder)
}

fn in_folder(folder: &Path) -> Result<Binaries> {
    let program = |name: &str| {
        let path = folder.join(name);
        ensure!(path.is_file(), "{} is missing", path.display());
        Ok(path)
    };
    Ok(Binaries {
        broker: program("mqbroker")?,
        nameserver: program("mqnamesrv")?,
        admin: program("mqadmin")?,
    })
}

fn build(folder: &Path) -> Result<()> {
    let workspace = crate_dir()
        .parent()
        .context("the test crate is not in a workspace")?;
    let target = folder
        .parent()
        .context("the profile's folder has no parent")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", target)
        .args([
            "build",
            "--quiet",
            "-p",
            "raftmq-broker",
            "-p",
            "raftmq-namesrv",
            "-p",
            "raftmq-admin",
            "--bins",
        ]);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
        None => bail!("{} names no profile", folder.display()),
    }
    let status = command.status().context("run cargo")?;
    ensure!(
        status.success(),
        "building mqbroker, mqnamesrv and mqadmin failed: {status}"
    );
    Ok(())
}

/// Where this crate's sources are. Cargo tells when it runs a test; what it told the compiler may be another
/// checkout that shared the target folder.
pub(crate) fn crate_dir() -> &'static Path {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        let at_run = std::env::var_os("CARGO_MANIFEST_DIR");
        at_run.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
    });
    &DIR
}
