//! The running nameserver: the socket, the scan for silent brokers, start and stop.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use raftmq_remoting::{Handler, Server, ServerOptions};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, Settings};
use crate::kv_config::{KvConfig, KvError};
use crate::processor::Processor;

/// Before the first scan, whatever the interval: brokers that reconnect after a restart get a moment.
const FIRST_SCAN: Duration = Duration::from_secs(5);

/// Why the nameserver did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// `bindAddress:listenPort`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The key-value configuration cannot be read.
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// A running nameserver. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct NameServer {
    server: Server,
    stop: CancellationToken,
}

impl NameServer {
    /// Starts on the current tokio runtime. Clients can connect on return.
    ///
    /// # Errors
    /// When the port is in use or a file cannot be read.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let settings = config.settings().clone();
        let kv = KvConfig::open(&settings.kv_config_path)?;
        let processor = Arc::new(Processor::new(config, kv));
        let server = bind(&settings, Arc::clone(&processor) as Arc<dyn Handler>)?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(scan(processor)));
        Ok(Self { server, stop })
    }

    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Stops: answers what is in flight and closes all connections.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.server.shutdown().await;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn bind(settings: &Settings, handler: Arc<dyn Handler>) -> Result<Server, StartError> {
    let Settings {
        bind_address,
        listen_port,
        ..
    } = settings;
    let listen = || {
        let port = u16::try_from(*listen_port).map_err(io::Error::other)?;
        let address = (bind_address.as_str(), port).to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
        let options = ServerOptions {
            idle: Duration::from_secs(settings.idle_seconds),
            backlog: u32::try_from(settings.backlog).unwrap_or(u32::MAX),
            ..ServerOptions::new(address)
        };
        Server::bind(options, handler)
    };
    listen().map_err(|source| StartError::Listen {
        address: format!("{bind_address}:{listen_port}"),
        source,
    })
}

/// Removes brokers that fell silent, and closes their connections.
async fn scan(processor: Arc<Processor>) {
    let interval = || Duration::from_millis(processor.settings().scan_interval_ms);
    tokio::time::sleep(FIRST_SCAN.min(interval())).await;
    loop {
        for expired in processor.expire() {
            let (broker, timeout_ms) = (&expired.broker, expired.timeout_ms);
            warn!(
                address = broker.address,
                cluster = broker.cluster,
                timeout_ms,
                "broker fell silent"
            );
        }
        // Read anew each time: updateNamesrvConfig may have changed it.
        tokio::time::sleep(interval()).await;
    }
}
