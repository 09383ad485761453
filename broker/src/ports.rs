//! The two ports on which clients reach a member: one, and the fast one two below, where nothing is held.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use raftmq_remoting::{Server, ServerOptions, listen};

use crate::broker::StartError;
use crate::config::NodeConfig;
use crate::dispatch::{Dispatch, Port};

/// How far below the key's port each of them is.
const BELOW: [u16; 2] = [0, 2];

/// Sockets that listen on the two ports.
pub(crate) type Pair = [TcpListener; 2];

/// Where clients are listened to, and who answers them.
pub(crate) struct ClientPorts {
    /// The configuration key of the port.
    key: &'static str,
    options: [ServerOptions; 2],
    dispatch: Arc<Dispatch>,
}

impl ClientPorts {
    /// The port of `options`, which `key` names, and the fast one.
    pub(crate) fn new(
        node: &NodeConfig,
        options: ServerOptions,
        key: &'static str,
        dispatch: &Arc<Dispatch>,
    ) -> ClientPorts {
        let options = BELOW.map(|below| {
            let mut bind = options.bind;
            bind.set_port(bind.port() - below);
            ServerOptions {
                bind,
                idle: node.listen.idle,
                held_max: node.pull.held_max,
                ..options.clone()
            }
        });
        ClientPorts {
            key,
            options,
            dispatch: Arc::clone(dispatch),
        }
    }

    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        self.options.each_ref().map(|options| options.bind)
    }

    /// Binds both and listens.
    pub(crate) fn bind(&self) -> Result<Pair, StartError> {
        let one =
            |nth: usize| listen(&self.options[nth]).map_err(|error| self.unusable(nth, error));
        Ok([one(0)?, one(1)?])
    }

    /// Answers those who connect to the sockets.
    pub(crate) fn serve(&self, pair: Pair) -> Result<[Server; 2], StartError> {
        let one = |nth: usize, listener: TcpListener| {
            let port = Port {
                dispatch: Arc::clone(&self.dispatch),
                fast: BELOW[nth] > 0,
            };
            Server::serve(listener, self.options[nth].clone(), Arc::new(port))
                .map_err(|error| self.unusable(nth, error))
        };
        let [main, fast] = pair;
        Ok([one(0, main)?, one(1, fast)?])
    }

    /// Why the main port, or the fast one, cannot be listened on.
    pub(crate) fn unusable(&self, nth: usize, source: std::io::Error) -> StartError {
        StartError::Bind {
            address: self.options[nth].bind,
            key: self.key,
            below: BELOW[nth],
            source,
        }
    }
}
