//! Members on free ports over temporary folders.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raftmq_broker::Broker;
use raftmq_broker::config::checked::{self, Environment};
use raftmq_proto::body::KvTable;
use raftmq_proto::code::request;
use raftmq_proto::frame::RemotingCommand;
use raftmq_remoting::{Client, ClientOptions, Handler, Responder};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::ports::free_ports;

/// Longer than anything here should take, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running member.
pub(crate) struct Member {
    broker: Broker,
    client: Client,
    folder: TempDir,
    conf: String,
    /// The client port.
    pub(crate) port: u16,
}

impl Member {
    /// Starts a member that is a group of its own, with further configuration lines, and waits until it leads.
    pub(crate) async fn start(more: &str) -> Member {
        let port = free_ports();
        let peers = format!("n0-127.0.0.1:{}", port + 1);
        Member::start_in(TempDir::new().unwrap(), conf(0, port, &peers, more), port).await
    }

    /// Starts the members of a group of three, and waits until each knows its part.
    pub(crate) async fn start_three() -> [Member; 3] {
        Member::start_three_with("").await
    }

    /// The same with further configuration lines.
    pub(crate) async fn start_three_with(more: &str) -> [Member; 3] {
        let ports = loop {
            let ports = [free_ports(), free_ports(), free_ports()];
            let apart = |a: u16, b: u16| a.abs_diff(b) > 3;
            if apart(ports[0], ports[1]) && apart(ports[1], ports[2]) && apart(ports[0], ports[2]) {
                break ports;
            }
        };
        let peers = [0, 1, 2]
            .map(|id| format!("n{id}-127.0.0.1:{}", ports[id] + 1))
            .join(";");
        let start = |id: usize| {
            let conf = conf(id, ports[id], &peers, more);
            Box::pin(Member::start_in(TempDir::new().unwrap(), conf, ports[id]))
        };
        let (first, second, third) = tokio::join!(start(0), start(1), start(2));
        [first, second, third]
    }

    /// Whether this member leads its group.
    pub(crate) fn leads(&self) -> bool {
        self.broker.group().role().borrow().serving
    }

    /// The commit log.
    pub(crate) fn log(&self) -> raftmq_store::CommitLog {
        self.broker.group().store().log.clone()
    }

    async fn start_in(folder: TempDir, conf: String, port: u16) -> Member {
        let text = format!("{conf}storePathRootDir={}\n", folder.path().display());
        let config = checked::read(text.as_bytes(), None, &Environment::default()).unwrap();
        // The threads of a member that was stopped a moment ago may still hold the store.
        let start = async {
            loop {
                match Broker::start(config.clone()).await {
                    Ok(broker) => return broker,
                    Err(error) if error.is_locked() => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let broker = within("a free store", start).await;
        within("a role", broker.role_known()).await;
        Member {
            broker,
            client: Client::new(ClientOptions::default()),
            folder,
            conf,
            port,
        }
    }

    /// Stops gracefully.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.client);
        within(
            "a stop",
            Box::pin(self.broker.shutdown(std::future::ready(()))),
        )
        .await;
        self.folder
    }

    /// Stops gracefully and starts again on the same store.
    pub(crate) async fn restart(self) -> Member {
        let (conf, port) = (self.conf.clone(), self.port);
        let folder = self.stop().await;
        Member::start_in(folder, conf, port).await
    }

    /// Asks on the client port.
    pub(crate) async fn ask(&self, command: RemotingCommand) -> RemotingCommand {
        self.ask_by(&self.client, command).await
    }

    /// Asks on the client port, by a client of one's own.
    pub(crate) async fn ask_by(
        &self,
        client: &Client,
        command: RemotingCommand,
    ) -> RemotingCommand {
        let address = format!("127.0.0.1:{}", self.port);
        client.invoke(&address, command, PATIENCE).await.unwrap()
    }

    /// Asks on the fast port.
    pub(crate) async fn ask_fast(&self, command: RemotingCommand) -> RemotingCommand {
        let address = format!("127.0.0.1:{}", self.port - 2);
        self.client
            .invoke(&address, command, PATIENCE)
            .await
            .unwrap()
    }

    /// A client, and what the broker tells it of its own accord.
    pub(crate) fn client_told(&self) -> (Client, mpsc::UnboundedReceiver<RemotingCommand>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let client = Client::new(ClientOptions::default()).with_handler(Arc::new(Listener(sender)));
        (client, receiver)
    }

    /// The runtime information.
    pub(crate) async fn info(&self) -> BTreeMap<String, String> {
        let info = self
            .ask(RemotingCommand::request(request::GET_BROKER_RUNTIME_INFO))
            .await;
        KvTable::from_json(&info.body.into_bytes()).unwrap().table
    }

    /// Waits until the runtime information shows something.
    pub(crate) async fn until(
        &self,
        what: &str,
        shows: impl Fn(&BTreeMap<String, String>) -> bool,
    ) {
        let look = async {
            while !shows(&self.info().await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(what, look).await;
    }
}

fn conf(id: usize, port: u16, peers: &str, more: &str) -> String {
    format!(
        "brokerName=b\nbrokerClusterName=c\nbrokerIP1=127.0.0.1\nlistenPort={port}\nbindAddress=127.0.0.1\n\
         enableDLegerCommitLog=true\ndLegerGroup=b\ndLegerSelfId=n{id}\ndLegerPeers={peers}\n\
         mappedFileSizeCommitLog=16777216\n{more}"
    )
}

struct Listener(mpsc::UnboundedSender<RemotingCommand>);

impl Handler for Listener {
    fn handle(&self, request: RemotingCommand, _: Responder) {
        // The test may have heard enough.
        drop(self.0.send(request));
    }
}

/// Waits for something, not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}
