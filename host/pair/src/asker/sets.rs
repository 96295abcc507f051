//! Data sets as a specification names them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use msao_datasets::{Item, Kind, Mix, Set, Workload, proportional};
use msao_evaluate::spec::{self, Data};

/// A data set's items, and those of them that are asked, in their order.
pub(super) struct Loaded {
    items: Vec<Item>,
    places: Vec<usize>,
}

impl Loaded {
    /// The item of this number; beyond the last it begins anew.
    pub(super) fn item(&self, index: u32) -> Result<&Item> {
        let place = (index as usize).checked_rem(self.places.len());
        let place = place.and_then(|at| self.places.get(at));
        place
            .and_then(|place| self.items.get(*place))
            .context("the data set has no item")
    }
}

/// `models`: where the demo world's own questions are.
pub(super) fn load(data: &Data, seed: u64, models: &Path, base: &Path) -> Result<Loaded> {
    let kind: Kind = match data.set {
        spec::Set::Demo => "vqav2:demo",
        spec::Set::Vqav2 => "vqav2",
        spec::Set::Mmbench => "mmbench",
    }
    .parse()
    .map_err(anyhow::Error::msg)?;
    let folder = match (&data.folder, data.set) {
        (Some(folder), _) => base.join(folder),
        (None, spec::Set::Demo | spec::Set::Mmbench) => models.join("heldout"),
        (None, spec::Set::Vqav2) => bail!("folder is missing: where the published files are"),
    };
    let mut items = Set::load(&folder, &kind)?.items;
    let count = data.n as usize;
    let mixed = matches!(data.set, spec::Set::Demo) && data.workload == "mixed";
    let places = if mixed {
        Workload::default().draw(&items, count, seed)?.places
    } else {
        match data.workload.as_str() {
            "mixed" | "all" => {}
            "short" => items.retain(|item| !item.long),
            "long" => items.retain(|item| item.long),
            mix => {
                let mix: Mix = mix.parse().map_err(|error| {
                    anyhow::anyhow!(
                        "workload = \"{mix}\": {error}; allowed: mixed, short, long, all, or media such as image or image+audio"
                    )
                })?;
                items.retain(|item| item.mix == mix);
            }
        }
        proportional(&items, count, seed).places
    };
    if places.is_empty() {
        bail!(
            "workload = \"{}\": {} has no such items",
            data.workload,
            folder.display()
        );
    }
    Ok(Loaded { items, places })
}
