//! The world that decision records tell of: who was there, what the link was like, what it cost.

use msao_core::offload::capability;
use msao_core::offload::record::DecisionRecord;
use msao_link::estimate::EstimateConfig;

use crate::error::{Result, must};
use crate::profile::Profile;
use crate::traffic::link_of;
use crate::world::{CloudGroup, EdgeGroup, Rules, World, most_sessions};

/// Peers that are taken from records at most.
const MOST_PEERS: usize = 8;

impl World {
    /// The node that made the records, and its peers, of which all are like the first. What records do not tell is how fast the
    /// models are when nobody measures: that says `profile`, of which `draft` and `target` name an engine each.
    ///
    /// # Errors
    /// [`crate::SimulateError::Value`]: there are no records, or the profile lacks an engine.
    pub fn recorded(
        records: &[DecisionRecord],
        profile: Profile,
        draft: &str,
        target: &str,
    ) -> Result<World> {
        must(
            !records.is_empty(),
            || "records".to_owned(),
            || "has no decision; allowed: one or more".to_owned(),
        )?;
        // What a node could do at any time: a peer that was down then has no models.
        let can = |row: usize| {
            let rows = records.iter().filter_map(|record| record.nodes.get(row));
            rows.fold(0, |can, node| can | node.can)
        };
        let model = |can: u32, bit: u32, name: &str| (can & bit != 0).then(|| name.to_owned());
        let rows = records.iter().map(|record| record.nodes.len()).max();
        let peers = rows.unwrap_or(0).saturating_sub(1).min(MOST_PEERS);
        let of_peers = (1..=peers).fold(0, |all, row| all | can(row));
        let peers = match of_peers & capability::TARGET {
            0 => 0,
            _ => peers as u32,
        };
        let clouds = CloudGroup {
            count: peers,
            target: target.to_owned(),
            draft: model(of_peers, capability::DRAFT, draft),
            price_per_mtok: price(records),
            one_device: false,
            cores: None,
            most_sessions: most_sessions(),
        };
        let world = World {
            clouds: if peers > 0 { vec![clouds] } else { Vec::new() },
            edges: vec![EdgeGroup {
                count: 1,
                draft: model(can(0), capability::DRAFT, draft),
                target: model(can(0), capability::TARGET, target),
                cores: None,
                peers,
                link: link_of(records).unwrap_or_default(),
            }],
            rules: Rules::default(),
            estimate: EstimateConfig::default(),
            profile: Some(profile),
        };
        world.check()?;
        Ok(world)
    }
}

/// The median price of a million tokens at the first peer; 0 where none is known.
fn price(records: &[DecisionRecord]) -> f64 {
    let peers = records.iter().filter_map(|record| record.nodes.get(1));
    let prices = peers.map(|peer| peer.price_per_mtok);
    let mut prices: Vec<f64> = prices
        .filter(|price| price.is_finite() && *price >= 0.0)
        .collect();
    prices.sort_by(f64::total_cmp);
    prices.get(prices.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;
    use std::path::Path;

    use msao_registry::state::read_jsonl;

    use super::*;

    fn records(name: &str) -> Vec<DecisionRecord> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/decisions");
        let file = File::open(folder.join(format!("{name}.jsonl.zst"))).unwrap();
        read_jsonl(BufReader::new(file)).unwrap().decisions
    }

    fn world(records: &[DecisionRecord]) -> Result<World> {
        let profile = Profile::measured().unwrap();
        World::recorded(records, profile, "demo-draft-zen3", "demo-target-zen3")
    }

    #[test]
    fn nodes_link_and_price_are_those_of_the_records() {
        let mut records = records("fixed-speculate");
        let rows = records[0].nodes.len() as u32;
        for record in &mut records {
            assert_eq!(record.nodes.len() as u32, rows);
            record.nodes[1].price_per_mtok = 0.8;
        }
        let recorded = world(&records).unwrap();
        assert!(rows > 1);
        assert_eq!(
            (recorded.edge_count(), recorded.cloud_count()),
            (1, rows - 1)
        );
        let (edge, cloud) = (&recorded.edges[0], &recorded.clouds[0]);
        assert_eq!(edge.draft.as_deref(), Some("demo-draft-zen3"));
        assert_eq!(edge.target, None);
        assert_eq!(edge.peers, rows - 1);
        assert!(edge.link.up.delay_ms > 0.0);
        assert_eq!(cloud.draft.as_deref(), Some("demo-draft-zen3"));
        assert_eq!(cloud.price_per_mtok, 0.8);
        // A node by itself, which has both models.
        for record in &mut records {
            record.nodes.truncate(1);
            record.nodes[0].can |= capability::TARGET;
        }
        let alone = world(&records).unwrap();
        assert!(alone.clouds.is_empty());
        assert_eq!(alone.edges[0].target.as_deref(), Some("demo-target-zen3"));
    }

    #[test]
    fn what_the_profile_lacks_is_named() {
        let profile = Profile::measured().unwrap();
        let records = records("cloud-only");
        let error = World::recorded(&records, profile, "none", "demo-target-zen3").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is \"none\"; allowed: an engine"),
            "{error}"
        );
        let error = world(&[]).unwrap_err().to_string();
        assert!(error.starts_with("records: has no decision"), "{error}");
    }
}
