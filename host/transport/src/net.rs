//! Where connections come from: TCP, or memory for nodes in one process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;

/// Bytes that a connection in memory holds each way.
const MEMORY_BYTES: usize = 64 << 10;
/// Connections in memory that may wait to be accepted.
const MEMORY_BACKLOG: usize = 64;

/// Bytes both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a peer is reached.
#[derive(Clone, Debug, Default)]
pub enum Dial {
    /// By TCP, at its address.
    #[default]
    Tcp,
    /// In this process. Tokio's paused clock works with it.
    Memory(MemoryDial),
}

/// The connecting end of [`memory`].
#[derive(Clone, Debug)]
pub struct MemoryDial(mpsc::Sender<DuplexStream>);

/// A listener within the process, and how it is reached. It counts as loopback.
pub fn memory() -> (MemoryDial, Listener) {
    let (to, from) = mpsc::channel(MEMORY_BACKLOG);
    (MemoryDial(to), Listener::Memory(from))
}

impl MemoryDial {
    /// A bare connection, as a peer's are.
    ///
    /// # Errors
    /// The listener is gone.
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        let (here, there) = duplex(MEMORY_BYTES);
        let sent = self.0.send(there).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(here)
    }
}

/// Where a node takes connections.
#[derive(Debug)]
pub enum Listener {
    /// A socket.
    Tcp(TcpListener),
    /// Memory; see [`memory`].
    Memory(mpsc::Receiver<DuplexStream>),
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Listener> {
        TcpListener::bind(address).await.map(Listener::Tcp)
    }

    /// Where; for memory, loopback and port 0.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Memory(_) => Ok(loopback()),
        }
    }

    /// The next connection. `None`: there will be none. Can be dropped and called again.
    pub(crate) async fn accept(&mut self) -> Option<io::Result<(Box<dyn Io>, SocketAddr)>> {
        match self {
            Listener::Tcp(listener) => Some(listener.accept().await.map(|(stream, from)| {
                at_once(&stream);
                (Box::new(stream) as Box<dyn Io>, from)
            })),
            Listener::Memory(from) => {
                let stream = from.recv().await?;
                Some(Ok((Box::new(stream) as Box<dyn Io>, loopback())))
            }
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// Frames are small and each is waited for, so none may wait for the next one to fill a packet.
pub(crate) fn at_once(stream: &TcpStream) {
    // Fails only on a socket that is gone already; the first read says so.
    let _ = stream.set_nodelay(true);
}
