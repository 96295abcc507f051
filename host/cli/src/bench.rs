//! Who asks nodes, simulates and measures for `msao bench`.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use msao_evaluate::capacity::{Capacity, CapacityArgs};
use msao_evaluate::profiled::{ProfileArgs, Profiled};
use msao_evaluate::rows::Results;
use msao_evaluate::simulated::{PlayArgs, Plays};
use msao_evaluate::spec::Spec;
use msao_evaluate::{Elsewhere, With};
use msao_pair::asker::PairAsker;
use msao_pair::pair::Places;

/// This program.
pub struct Here;

impl Elsewhere for Here {
    type Asker = PairAsker;

    fn asker(&self, spec: &Spec, base: &Path, with: &With) -> Result<PairAsker> {
        let places = Places {
            msao: std::env::current_exe()?,
            models: std::path::absolute(&with.models)?,
            plugins: std::path::absolute(&with.plugins)?,
        };
        // Nodes have other folders.
        let base = std::env::current_dir()?.join(base);
        PairAsker::new(places, &with.twins, spec, &base)
    }

    fn play(&self, results: &Results, base: &Path, with: &PlayArgs) -> Result<Plays> {
        msao_rehearse::play(results, base, with)
    }

    fn measure(
        &self,
        with: &ProfileArgs,
        told: &mut dyn FnMut(&str),
        stop: &AtomicBool,
    ) -> Result<Option<Profiled>> {
        msao_profile::measure(&std::env::current_exe()?, with, told, stop)
    }

    fn capacity(
        &self,
        with: &CapacityArgs,
        told: &mut dyn FnMut(&str),
        stop: &AtomicBool,
    ) -> Result<Option<Capacity>> {
        msao_rehearse::capacity(with, told, stop)
    }
}
