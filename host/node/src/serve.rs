//! A node's life: loading, listening, draining.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::http::Server;
use crate::node::{Models, Node, StartError};

/// Where a node that is up can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// By clients.
    pub api: SocketAddr,
    /// Whether they have to speak TLS.
    pub tls: bool,
}

/// Runs a node until `ended`: then it takes no more requests, and returns when those under way are over or the time for
/// that is. `up` is told once, when clients may come.
///
/// # Errors
/// [`StartError`]: it has not come up.
pub async fn serve(
    config: NodeConfig,
    ended: impl Future<Output = ()>,
    up: impl FnOnce(&Addresses),
) -> Result<(), StartError> {
    let models = Models::load(&config).await?;
    let node = Node::start(config, models, Arc::new(|_| None)).await?;
    let server = Server::bind(&node).await?;
    let address = server.address().map_err(|error| StartError::Listen {
        key: "api.listen",
        address: node.config.api.listen,
        error,
    })?;
    up(&Addresses {
        api: address,
        tls: server.is_tls(),
    });
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(stop.clone()));
    ended.await;
    tracing::info!("no more requests are taken; those under way go on");
    node.drain();
    stop.cancel();
    if serving.await.is_err() {
        tracing::error!("the listener ended by a panic");
    }
    Ok(())
}
