//! Releases that go because nobody needs them any more.
//!
//! Whether one is needed is looked at under the lock of the verbs, and it is taken away under the same lock. Who was compiling
//! it meanwhile asks under that lock again whether it is here. Serials lie with the deployment, not with the releases: what was
//! removed cannot be brought back in place of something newer.

use std::sync::atomic::Ordering;

use msao_core::offload::manifest::Manifest;
use thiserror::Error;

use super::{Inner, Plugins, Refused, Verbs};
use crate::deployment::Spec;
use crate::store::{Release, StoreError};

/// What a release is needed for: by which generation, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InUse {
    /// It decides.
    #[error(
        "it is active (generation {0}); it may go once another one is active and a rollback does not go back to it any more"
    )]
    Active(u64),
    /// It gets a share of the sessions.
    #[error("it is in the canary (generation {0}); roll that back first")]
    Canary(u64),
    /// It runs beside.
    #[error("it is in the shadow (generation {0}); end that first")]
    Shadow(u64),
    /// It was active before.
    #[error(
        "a rollback goes back to it (generation {0}); it may go once another generation has been activated"
    )]
    Before(u64),
    /// It was left, and not all of its requests are over.
    #[error("requests are under way on it (generation {0}); try again when they are over")]
    UnderWay(u64),
}

impl InUse {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            InUse::Active(_) => "active",
            InUse::Canary(_) => "canary",
            InUse::Shadow(_) => "shadow",
            InUse::Before(_) => "before",
            InUse::UnderWay(_) => "under-way",
        }
    }
}

/// A release with its manifest, where that can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// It.
    pub release: Release,
    /// Its manifest.
    pub manifest: Option<Manifest>,
}

impl Described {
    /// For people: name and version, or how its digest begins.
    pub fn words(&self) -> String {
        self.manifest.as_ref().map_or_else(
            || self.release.artifact.short(),
            |manifest| format!("{} {}", manifest.name, manifest.version),
        )
    }
}

/// What a removal came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Removed {
    /// What is not here any more.
    pub removed: Vec<Described>,
    /// What is needed, and what for.
    pub kept: Vec<(Described, InUse)>,
    /// Bytes of the files that are gone.
    pub bytes: u64,
}

impl Inner {
    /// What a release is needed for; None: nothing.
    fn need(&self, verbs: &Verbs, release: &Release) -> Option<InUse> {
        let deployment = &verbs.deployment;
        let has_it = |spec: &Spec| spec.releases().any(|it| it == *release);
        let number = |spec: Option<&Spec>| spec.filter(|it| has_it(it)).map(|it| it.number);
        let candidate = deployment.rollout.as_ref().map(|it| &it.candidate);
        let held = number(Some(&deployment.active))
            .map(InUse::Active)
            .or(number(candidate).map(InUse::Canary))
            .or(number(deployment.shadow.as_ref()).map(InUse::Shadow))
            .or(number(deployment.previous.as_ref()).map(InUse::Before));
        held.or_else(|| {
            let alive = self.alive();
            let busy = alive.iter().find(|generation| {
                generation.in_flight.load(Ordering::Relaxed) > 0 && has_it(&generation.spec)
            });
            busy.map(|generation| InUse::UnderWay(generation.spec.number))
        })
    }

    /// Takes a release away, if nothing needs it. Returns how many bytes that freed.
    fn remove(&self, release: Release) -> Result<(Described, Result<u64, InUse>), Refused> {
        let verbs = self.verbs();
        if let Some((_, why)) = &verbs.unwritten {
            // What is on the disk names other releases than the deployment here.
            return Err(Refused::Unsettled(why.clone()));
        }
        if !self.store.has(&release) {
            return Err(Refused::NotHere(release));
        }
        let described = self.store.describe(&release).ok().flatten();
        let manifest = described.map(|(manifest, _)| manifest);
        let done = match self.need(&verbs, &release) {
            Some(need) => Err(need),
            None => Ok(self.store.remove(&release).map_err(StoreError::File)?),
        };
        Ok((Described { release, manifest }, done))
    }
}

impl Plugins {
    /// Takes a release away that nothing needs: neither the active generation, nor a canary or a shadow, nor what a rollback
    /// goes back to, nor a request that is under way.
    ///
    /// # Errors
    /// [`Refused::InUse`] says what it is needed for, [`Refused::NotHere`] that there is none; [`Refused::Unsettled`].
    pub fn remove(&self, release: Release) -> Result<Removed, Refused> {
        let (removed, done) = self.inner.remove(release)?;
        match done {
            Ok(bytes) => Ok(Removed {
                removed: vec![removed],
                kept: Vec::new(),
                bytes,
            }),
            Err(why) => Err(Refused::InUse {
                what: removed.words(),
                why,
            }),
        }
    }

    /// Takes away every release that nothing needs.
    ///
    /// # Errors
    /// [`Refused::Unsettled`], or the disk's: some are gone then.
    pub fn remove_unused(&self) -> Result<Removed, Refused> {
        let store = &self.inner.store;
        let mut all = Removed {
            bytes: store.finish_removals().map_err(StoreError::File)?,
            ..Removed::default()
        };
        // The lock is taken for each: a rollback is not kept waiting by a hundred.
        for release in store.releases().map_err(StoreError::File)? {
            match self.inner.remove(release) {
                Ok((removed, Ok(bytes))) => {
                    all.removed.push(removed);
                    all.bytes += bytes;
                }
                Ok((kept, Err(need))) => all.kept.push((kept, need)),
                // Somebody else was faster.
                Err(Refused::NotHere(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}
