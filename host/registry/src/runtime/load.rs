//! From a release to something that can be called. Slow: none of this runs on a request's path.

use std::sync::{Arc, PoisonError};

use msao_core::offload::manifest::{Manifest, Probe};
use msao_state::{Cells, CellsKey};

use super::generation::{Generation, Part};
use super::{Inner, Refused};
use crate::bundle::Bundle;
use crate::deployment::{Claim, Spec};
use crate::parameters::{Values, in_force};
use crate::plugin::{Loaded, PolicyPlugin, PostProcessorPlugin};
use crate::store::Release;

/// Instances that a new generation is given because the active one has them, at most: the sandbox has to have room for both,
/// and for the one before.
const MOST_LIKE_ACTIVE: u32 = 32;

/// A plug-in that is loaded, and was let in.
pub(crate) struct Half<P: ?Sized> {
    pub(crate) release: Release,
    pub(crate) plugin: Arc<P>,
    /// Its signed serial, where it is signed.
    pub(crate) claim: Option<Claim>,
}

impl<P: ?Sized> Clone for Half<P> {
    fn clone(&self) -> Self {
        Half {
            release: self.release,
            plugin: Arc::clone(&self.plugin),
            claim: self.claim.clone(),
        }
    }
}

/// Both halves of a generation.
#[derive(Clone, Default)]
pub(crate) struct Halves {
    pub(crate) policy: Option<Half<dyn PolicyPlugin>>,
    pub(crate) postprocessor: Option<Half<dyn PostProcessorPlugin>>,
}

/// Where a generation's cells come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// Those in force.
    Live,
    /// A fork of its own.
    Fork,
    /// Those that the generation of this number displaced, else those in force.
    DisplacedBy(u64),
    /// A copy that nobody keeps.
    Scratch,
}

impl Halves {
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        let policy = self.policy.as_ref().map(|half| half.plugin.manifest());
        let postprocessor = (self.postprocessor.as_ref()).map(|half| half.plugin.manifest());
        policy.into_iter().chain(postprocessor)
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        let policy = self.policy.as_ref().and_then(|half| half.claim.clone());
        let postprocessor = (self.postprocessor.as_ref()).and_then(|half| half.claim.clone());
        policy.into_iter().chain(postprocessor).collect()
    }

    /// What of the operator's pins is about them.
    pub(crate) fn pins(&self, pins: &Values) -> Values {
        self.manifests()
            .filter_map(|manifest| pins.get_key_value(&manifest.name))
            .map(|(name, own)| (name.clone(), own.clone()))
            .collect()
    }

    /// Checks that they fit together.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        match (&self.policy, &self.postprocessor) {
            (Some(policy), None) if policy.plugin.manifest().probe != Probe::None => Err(
                Refused::NoPostProcessor(policy.plugin.manifest().name.clone()),
            ),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// Compiles a plug-in; `release` is its own.
    pub(crate) fn load(&self, bundle: &Bundle, release: &Release) -> Result<Loaded, Refused> {
        let Bundle { wasm, manifest, .. } = bundle;
        let loaded = self.loader.load(wasm, &release.artifact, manifest);
        loaded.map_err(|problem| Refused::Load {
            name: bundle.manifest.name.clone(),
            problem,
        })
    }

    fn let_in(&self, release: Release) -> Result<(Loaded, Option<Claim>), Refused> {
        let bundle = self.store.get(&release)?;
        let signature = bundle.signature.as_ref();
        let serial = self.trust.load().check(&release, signature)?;
        let signed = serial.zip(signature);
        let claim = signed.map(|(serial, signature)| Claim {
            plugin: bundle.manifest.name.clone(),
            release,
            serial,
            key: signature.key,
        });
        Ok((self.load(&bundle, &release)?, claim))
    }

    pub(crate) fn policy(&self, release: Release) -> Result<Half<dyn PolicyPlugin>, Refused> {
        match self.let_in(release)? {
            (Loaded::Policy(plugin), claim) => Ok(Half {
                release,
                plugin,
                claim,
            }),
            (Loaded::PostProcessor(plugin), _) => Err(Refused::World {
                name: plugin.manifest().name.clone(),
                world: plugin.manifest().world,
                wanted: "policy",
            }),
        }
    }

    pub(crate) fn postprocessor(
        &self,
        release: Release,
    ) -> Result<Half<dyn PostProcessorPlugin>, Refused> {
        match self.let_in(release)? {
            (Loaded::PostProcessor(plugin), claim) => Ok(Half {
                release,
                plugin,
                claim,
            }),
            (Loaded::Policy(plugin), _) => Err(Refused::World {
                name: plugin.manifest().name.clone(),
                world: plugin.manifest().world,
                wanted: "post-processor",
            }),
        }
    }

    /// Makes instances, so that the first requests need not: as many as the operator says, and as the active generation
    /// has, where the sandbox has room.
    pub(crate) fn warm(&self, halves: &Halves) -> Result<(), Refused> {
        let active = Arc::clone(&self.table.load().stable);
        let enough = |instances: Option<u32>| instances.unwrap_or(0).min(MOST_LIKE_ACTIVE);
        let policy = halves.policy.as_ref().map(|half| &half.plugin);
        if let Some(policy) = policy {
            self.warm_one(policy.manifest(), |count| policy.warm(count))?;
            let like = active.policy.as_ref().map(|part| part.plugin.instances());
            let _ = policy.warm(enough(like));
        }
        let postprocessor = halves.postprocessor.as_ref().map(|half| &half.plugin);
        if let Some(postprocessor) = postprocessor {
            self.warm_one(postprocessor.manifest(), |count| postprocessor.warm(count))?;
            let like = (active.postprocessor.as_ref()).map(|part| part.plugin.instances());
            let _ = postprocessor.warm(enough(like));
        }
        Ok(())
    }

    fn warm_one(
        &self,
        manifest: &Manifest,
        warm: impl FnOnce(u32) -> Result<(), String>,
    ) -> Result<(), Refused> {
        match self.config.warm {
            0 => Ok(()),
            count => warm(count).map_err(|problem| Refused::Load {
                name: manifest.name.clone(),
                problem,
            }),
        }
    }

    fn cells(&self, number: u64, from: From, key: &CellsKey) -> Cells {
        match from {
            From::Live => self.calibration.live(key),
            From::Fork => self.calibration.fork(number, key),
            From::DisplacedBy(by) => {
                (self.calibration.displaced(by, key)).unwrap_or_else(|| self.calibration.live(key))
            }
            From::Scratch => self.calibration.scratch(key),
        }
    }

    fn key(&self, manifest: &Manifest) -> CellsKey {
        CellsKey {
            plugin: manifest.name.clone(),
            state_schema: manifest.state_schema,
            models: self.site.models.clone(),
            node: self.site.node.clone(),
        }
    }

    /// Puts a generation together.
    pub(crate) fn assemble(
        &self,
        spec: Spec,
        halves: &Halves,
        from: From,
    ) -> Result<Arc<Generation>, Refused> {
        let number = spec.number;
        let given = |manifest: &Manifest| -> Result<_, Refused> {
            let params = in_force(manifest, &spec.pins, &spec.tuned)?;
            let key = self.key(manifest);
            Ok((params, self.cells(number, from, &key), key))
        };
        let policy = (halves.policy.as_ref())
            .map(|half| {
                let (params, cells, key) = given(half.plugin.manifest())?;
                Ok::<_, Refused>(Part {
                    plugin: Arc::clone(&half.plugin),
                    params,
                    cells,
                    key,
                })
            })
            .transpose()?;
        let postprocessor = (halves.postprocessor.as_ref())
            .map(|half| {
                let (params, cells, key) = given(half.plugin.manifest())?;
                Ok::<_, Refused>(Part {
                    plugin: Arc::clone(&half.plugin),
                    params,
                    cells,
                    key,
                })
            })
            .transpose()?;
        let generation = Arc::new(Generation::new(
            spec,
            policy,
            postprocessor,
            &self.in_memory,
        ));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|generation| generation.strong_count() > 0);
        all.push(Arc::downgrade(&generation));
        Ok(generation)
    }
}
