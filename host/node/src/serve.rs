//! A node's life: loading, listening, draining.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use msao_registry::KeysRefused;
use msao_transport::MediaStore;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::Unguarded;
use crate::cloud::Media;
use crate::config::NodeConfig;
use crate::http;
use crate::node::{Models, Node, StartError};
use crate::operator;
use crate::peers::{Intake, Remote, Told};
use crate::request::fetch::Fetcher;

/// Where a node that is up can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// By clients.
    pub api: SocketAddr,
    /// Whether they have to speak TLS.
    pub tls: bool,
    /// By operators; `None`: not at all.
    pub operator: Option<SocketAddr>,
    /// Whether they have to speak TLS.
    pub operator_tls: bool,
    /// By other nodes; `None`: not at all.
    pub nodes: Option<SocketAddr>,
}

/// Why a node goes on with the keys, tokens and certificate that it has.
#[derive(Debug, Error)]
pub enum RenewError {
    /// The operators' listener would be open to everybody.
    #[error(transparent)]
    Unguarded(#[from] Unguarded),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] StartError),
    /// A certificate where there was none, or the other way round.
    #[error("{0}: whether a listener speaks TLS can only be changed by starting the node anew")]
    Encryption(&'static str),
    /// The keys that sign plug-ins.
    #[error(transparent)]
    SigningKeys(#[from] KeysRefused),
}

/// A node that is up.
pub struct Running {
    /// It.
    pub node: Arc<Node>,
    /// Where it listens.
    pub addresses: Addresses,
    /// How clients' connections are encrypted, and operators'.
    tls: Option<http::Tls>,
    operator_tls: Option<http::Tls>,
    /// Takes nothing new, and lets go on what is under way.
    stop: CancellationToken,
    /// Takes no operators either.
    last: CancellationToken,
    serving: Vec<(&'static str, JoinHandle<()>)>,
    operating: Option<JoinHandle<()>>,
}

impl Running {
    /// Brings a node up on models that are loaded.
    ///
    /// # Errors
    /// [`StartError`]: then nothing listens.
    pub async fn start(config: NodeConfig, models: Models) -> Result<Running, StartError> {
        let fetcher = Fetcher::new(&config.media)?;
        Running::fetching(config, models, fetcher).await
    }

    /// The same with a fetcher that reaches other hosts than a node may: for tests.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub async fn fetching(
        config: NodeConfig,
        models: Models,
        fetcher: Fetcher,
    ) -> Result<Running, StartError> {
        let told = Told::new(&models);
        let store = MediaStore::new(u64::from(config.sessions.media_mib) << 20);
        let kept = store.clone();
        let media: Media = Arc::new(move |digest| kept.get(*digest));
        let peers = Remote::all(&config, &told)?;
        let node = Node::start(config, models, media, peers, fetcher).await?;
        told.is(&node);
        let api = http::bind(&node).await?;
        let intake = match &node.sessions {
            Some(sessions) if node.config.node.role.serves_nodes() => {
                Some(Intake::bind(&node.config, store, &told, sessions).await?)
            }
            _ => None,
        };
        let operators = operator::bind(&node).await?;
        let config = &node.config;
        let unknown = |key, address| {
            move |error| StartError::Listen {
                key,
                address,
                error,
            }
        };
        let nodes = intake.as_ref().map(Intake::address).transpose();
        let operator = operators.as_ref().map(|operators| operators.address());
        let tls = api.tls().cloned();
        let operator_tls = operators.as_ref().and_then(|it| it.tls().cloned());
        let addresses = Addresses {
            api: api
                .address()
                .map_err(unknown("api.listen", config.api.listen))?,
            tls: tls.is_some(),
            operator: (operator.transpose())
                .map_err(unknown("operator.listen", config.api.listen))?,
            operator_tls: operator_tls.is_some(),
            nodes: nodes.map_err(unknown("sessions.listen", config.sessions.listen))?,
        };
        let (stop, last) = (CancellationToken::new(), CancellationToken::new());
        let mut serving = vec![("clients", tokio::spawn(api.serve(stop.clone())))];
        if let Some(intake) = intake {
            let serve = intake.serve(node.watch_draining(), stop.clone());
            serving.push(("other nodes", tokio::spawn(serve)));
        }
        Ok(Running {
            operating: operators.map(|operators| tokio::spawn(operators.serve(last.clone()))),
            node,
            addresses,
            tls,
            operator_tls,
            stop,
            last,
            serving,
        })
    }

    /// Takes clients' keys, operators' tokens, the keys that sign plug-ins and the certificates for clients and operators from a
    /// configuration that was read anew. All else needs a new start. Certificates for other nodes are looked at all the time.
    ///
    /// # Errors
    /// One of them cannot be used: then nothing has changed.
    pub fn renew(&self, config: &NodeConfig) -> Result<(), RenewError> {
        let access = self.node.access.load().renewed(config)?;
        let clients = (&self.tls, http::certificate(&config.api), "api.tls-cert");
        let operators = (
            &self.operator_tls,
            http::operators_certificate(&config.operator),
            "operator.tls-cert",
        );
        let mut use_certificates = Vec::new();
        for (tls, certificate, key) in [clients, operators] {
            match (tls, certificate) {
                (Some(tls), Some(certificate)) => use_certificates.push(tls.renewal(certificate)?),
                (None, None) => {}
                _ => return Err(RenewError::Encryption(key)),
            }
        }
        // The last that may be refused, because it takes effect in the same step.
        for line in self.node.plugins.trust(&config.policy)? {
            tracing::warn!("{line}");
        }
        for use_certificate in use_certificates {
            use_certificate();
        }
        self.node.access.store(Arc::new(access));
        Ok(())
    }

    /// Takes no more requests, and returns when those under way are over or the time for that is.
    pub async fn drain(mut self) {
        self.node.stop();
        self.stop.cancel();
        for (whom, serving) in std::mem::take(&mut self.serving) {
            if serving.await.is_err() {
                tracing::error!("the listener for {whom} ended by a panic");
            }
        }
        // Operators may look on to the end.
        self.last.cancel();
        if let Some(operating) = self.operating.take()
            && operating.await.is_err()
        {
            tracing::error!("the listener for operators ended by a panic");
        }
    }
}

/// Who does not drain a node cuts it off.
impl Drop for Running {
    fn drop(&mut self) {
        let serving = self.serving.iter().map(|(_, serving)| serving);
        serving.chain(&self.operating).for_each(JoinHandle::abort);
    }
}

/// Runs a node until `ended`: then it takes no more requests, and returns when those under way are over or the time for
/// that is. `up` is told once, when clients may come. What comes through `anew` is for [`Running::renew`].
///
/// # Errors
/// [`StartError`]: it has not come up.
pub async fn serve(
    config: NodeConfig,
    ended: impl Future<Output = ()>,
    mut anew: mpsc::Receiver<NodeConfig>,
    up: impl FnOnce(&Addresses),
) -> Result<(), StartError> {
    let models = Models::load(&config).await?;
    let running = Running::start(config, models).await?;
    up(&running.addresses);
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            Some(config) = anew.recv() => match running.renew(&config) {
                Ok(()) => tracing::info!("keys, tokens and certificates are renewed"),
                Err(error) => tracing::error!(%error, "keys, tokens and certificates stay as they were"),
            },
        }
    }
    tracing::info!("no more requests are taken; those under way go on");
    running.drain().await;
    Ok(())
}
