//! What several configurations of one process must not share.

use std::collections::BTreeMap;

use super::{Config, ConfigError};

/// Checks members of one process against each other; each comes with the name of its file.
///
/// # Errors
/// When two belong to one group, or want the same port or store.
pub fn check<'a>(
    members: impl IntoIterator<Item = (&'a str, &'a Config)>,
) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (file, config) in members {
        for what in claims(config) {
            if let Some(other) = owners.insert(what.clone(), file) {
                return Err(ConfigError(format!(
                    "{file} and {other} both have {what}: members of one process must differ in it"
                )));
            }
        }
    }
    Ok(())
}

/// What a member wants for itself, what says most first.
fn claims(config: &Config) -> Vec<String> {
    let (group, node) = (&config.group, &config.node);
    let mut claims = vec![format!("dLegerGroup = {}", group.name)];
    if group.broker_name != group.name {
        claims.push(format!("brokerName = {}", group.broker_name));
    }
    claims.push(format!("storePathRootDir = {}", node.store.root.display()));
    claims.push(format!(
        "storePathCommitLog = {}",
        node.store.commit_log.display()
    ));
    let listen = node.listen.port;
    let mut ports = vec![listen, listen - 2, node.raft.bind.port()];
    if let Some(endpoint) = &node.endpoint {
        ports.extend([endpoint.port, endpoint.port - 2]);
    }
    claims.extend(ports.iter().map(|port| format!("port {port}")));
    claims
}

#[cfg(test)]
mod tests {
    use super::super::checked::{Environment, read};
    use super::*;

    fn config(text: &str) -> Config {
        read(text.as_bytes(), None, &Environment::default()).unwrap()
    }

    #[test]
    fn members_of_one_process_share_neither_port_nor_store_nor_group() {
        let first = config("brokerName=a\nlistenPort=1000\nstorePathRootDir=/a\n");
        let against = |text: &str| {
            let second = config(text);
            check([("a.conf", &first), ("b.conf", &second)])
        };
        assert_eq!(
            against("brokerName=b\nlistenPort=1010\nstorePathRootDir=/b\n"),
            Ok(())
        );
        for (text, shared) in [
            (
                "brokerName=b\nlistenPort=1002\nstorePathRootDir=/b\n",
                "port 1000",
            ),
            (
                "brokerName=b\nlistenPort=1010\nstorePathRootDir=/a\n",
                "storePathRootDir = /a",
            ),
            (
                "brokerName=a\nlistenPort=1010\nstorePathRootDir=/b\n",
                "dLegerGroup = a",
            ),
            (
                "brokerName=b\nlistenPort=1010\nstorePathRootDir=/b\nleaderEndpoint=h:998\n",
                "port 998",
            ),
        ] {
            let error = against(text).unwrap_err().to_string();
            for part in ["b.conf and a.conf", shared] {
                assert!(error.contains(part), "{part} in {error}");
            }
        }
    }
}
