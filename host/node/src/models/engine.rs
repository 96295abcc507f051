//! What answers, behind a trait: the engine's service, or in benchmarks something of known speed.

use std::future::Future;
use std::pin::Pin;

use msao_core::meter::Meter;
use msao_core::probe::ProbeReport;
use msao_engine::Keep;
use msao_engine::service::{Load, Open, Service, ServiceError, Session, Verdict};

/// Work that somebody waits for.
pub type Awaited<'a, T> = Pin<Box<dyn Future<Output = Result<T, ServiceError>> + Send + 'a>>;

/// A model that sessions can be opened on.
pub trait Engine: Send + Sync + 'static {
    /// See [`Service::open`].
    fn open(&self, open: Open) -> Awaited<'_, Box<dyn Seat>>;
    /// How busy it is.
    fn load(&self) -> Load;
    /// Tokens that the cache holds in all.
    fn capacity(&self) -> usize;
}

/// One prompt and its answer on a model. Orders run in the order in which they are given; dropping it ends the session.
pub trait Seat: Send + Sync {
    /// Waits until the prompt has been read.
    fn read(&self) -> Awaited<'_, ()>;
    /// See [`Session::verify`].
    fn verify(&self, drafts: Vec<u32>) -> Awaited<'_, Verdict>;
    /// See [`Session::append`].
    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()>;
    /// See [`Session::roll_back`].
    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()>;
    /// See [`Session::probed`].
    fn probed(&self) -> Awaited<'_, ProbeReport>;
    /// See [`Session::keep`].
    fn keep(&self, keep: Keep) -> Awaited<'_, ()>;
    /// What it has cost so far.
    fn meter(&self) -> Awaited<'_, Meter>;
}

impl Engine for Service {
    fn open(&self, open: Open) -> Awaited<'_, Box<dyn Seat>> {
        Box::pin(async {
            let session = Service::open(self, open).await?;
            Ok(Box::new(session) as Box<dyn Seat>)
        })
    }

    fn load(&self) -> Load {
        Service::load(self)
    }

    fn capacity(&self) -> usize {
        Service::capacity(self)
    }
}

impl Seat for Session {
    fn read(&self) -> Awaited<'_, ()> {
        Box::pin(Session::read(self))
    }

    fn verify(&self, drafts: Vec<u32>) -> Awaited<'_, Verdict> {
        Box::pin(Session::verify(self, drafts))
    }

    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()> {
        Box::pin(Session::append(self, tokens))
    }

    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()> {
        Box::pin(Session::roll_back(self, tokens))
    }

    fn probed(&self) -> Awaited<'_, ProbeReport> {
        Box::pin(Session::probed(self))
    }

    fn keep(&self, keep: Keep) -> Awaited<'_, ()> {
        Box::pin(Session::keep(self, keep))
    }

    fn meter(&self) -> Awaited<'_, Meter> {
        Box::pin(Session::meter(self))
    }
}
