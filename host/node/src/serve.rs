//! A node's life: loading, listening, draining.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::http;
use crate::node::{Models, Node, StartError};
use crate::operator;

/// Where a node that is up can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// By clients.
    pub api: SocketAddr,
    /// Whether they have to speak TLS.
    pub tls: bool,
    /// By operators; `None`: not at all.
    pub operator: Option<SocketAddr>,
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
    let server = http::bind(&node).await?;
    let operators = operator::bind(&node).await?;
    let unknown = |key, address| move |error| StartError::Listen { key, address, error };
    let listen = node.config.api.listen;
    let operator = operators.as_ref().map(|operators| operators.address());
    let operator = operator.transpose().map_err(unknown("operator.listen", listen))?;
    up(&Addresses {
        api: server.address().map_err(unknown("api.listen", listen))?,
        tls: server.is_tls(),
        operator,
    });
    let (stop, last) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(stop.clone()));
    let operating = operators.map(|operators| tokio::spawn(operators.serve(last.clone())));
    ended.await;
    tracing::info!("no more requests are taken; those under way go on");
    node.drain();
    stop.cancel();
    if serving.await.is_err() {
        tracing::error!("the listener ended by a panic");
    }
    // Operators may look on to the end.
    last.cancel();
    if let Some(operating) = operating
        && operating.await.is_err()
    {
        tracing::error!("the operators' listener ended by a panic");
    }
    Ok(())
}
