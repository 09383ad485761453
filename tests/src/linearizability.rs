//! Judges what [`registers`](crate::registers) wrote, with the porcupine checker (`tests/linearizability`, a Go module).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::binaries::crate_dir;
use crate::suite::leave_out;

/// Fetches what the checker is built from, for those who are about to cut themselves off from the network. What fails here is
/// told by [`check`].
pub fn fetch() {
    let mut command = Command::new("go");
    command.args(["mod", "download"]);
    let folder = crate_dir().join("linearizability");
    command.current_dir(folder).output().ok();
}

/// Checks every key of a history: what was judged, or an error that names the key and tells how far it fits. `None`, said
/// loudly, where there is no Go.
pub fn check(history: &Path) -> Result<Option<String>> {
    let missing = Command::new("go").arg("version").output().is_err();
    if missing {
        leave_out("there is no Go, so nobody says whether the registers are linearizable")?;
        return Ok(None);
    }
    let checker = build(history)?;
    let picture = history.with_extension("html");
    let output = Command::new(&checker)
        .arg("-picture")
        .arg(&picture)
        .arg(history)
        .output()
        .with_context(|| format!("run {}", checker.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => Ok(Some(said.trim().to_owned())),
        Some(1) => bail!(
            "{said}the history is {}, drawn in {}",
            history.display(),
            picture.display()
        ),
        _ => bail!(
            "the checker says {}: {said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Builds the checker beside the history: several checkouts may do this at once. Go itself knows what has not changed.
fn build(history: &Path) -> Result<PathBuf> {
    let checker = history.with_extension("checker");
    let output = Command::new("go")
        .current_dir(crate_dir().join("linearizability"))
        .args(["build", "-mod=readonly", "-o"])
        .arg(&checker)
        .arg(".")
        .output()
        .context("run go")?;
    ensure!(
        output.status.success(),
        "go build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(checker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_good_history_from_a_bad_one() {
        let folder = tempfile::tempdir().unwrap();
        let line = |call: u32, op: &str, value: &str| {
            format!(
                r#"{{"kind":"register","key":"k","client":1,"call":{call},"return":{},"op":"{op}","value":"{value}","outcome":"ok"}}"#,
                call + 1
            )
        };
        let judge = |name: &str, lines: &[String]| {
            let path = folder.path().join(name);
            std::fs::write(&path, lines.join("\n")).unwrap();
            check(&path)
        };
        let good = [line(10, "write", "a"), line(20, "read", "a")];
        let Some(said) = judge("good", &good).unwrap() else {
            return;
        };
        assert!(said.starts_with("1 keys, 2 operations"), "{said}");
        let bad = [line(10, "write", "a"), line(20, "read", "")];
        let error = judge("bad", &bad).unwrap_err().to_string();
        assert!(error.contains("k: NOT linearizable"), "{error}");
        let senseless = judge("senseless", &["{".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(senseless.contains("line 1"), "{senseless}");
    }
}
