//! The nodes and links that are simulated.

use msao_core::offload::Means;
use msao_link::estimate::EstimateConfig;
use msao_link::shaper::{Course, LinkConfig};
use serde::{Deserialize, Serialize};

use crate::error::{Result, SimulateError, must, within};
use crate::profile::Profile;

/// Edges, and clouds, at most.
const MOST_NODES: u32 = 1_000_000;
/// Peers of an edge at most: rows that a policy looks at.
const MOST_PEERS: u32 = 64;
/// Cores of a node at most.
const MOST_CORES: u32 = 1024;

/// Nodes by groups, what they cost, and what they are able to do.
///
/// ```
/// use msao_simulate::World;
///
/// let world = World::parse(
///     r#"
///     [[clouds]]
///     count = 2
///     target = "twin-zen4"
///     draft = "demo-draft-zen3"
///     price-per-mtok = 0.8
///
///     [[edges]]
///     count = 100
///     draft = "demo-draft-zen3"
///     peers = 2
///
///     [edges.link]
///     up = { bandwidth = "20 Mbit/s", delay-ms = 20.0, jitter-ms = 3.0 }
///     down = { bandwidth = "50 Mbit/s", delay-ms = 20.0, jitter-ms = 3.0 }
///     "#,
/// )?;
/// assert_eq!(world.edge_count(), 100);
/// # Ok::<(), msao_simulate::SimulateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct World {
    /// Nodes with the target.
    #[serde(default)]
    pub clouds: Vec<CloudGroup>,
    /// Nodes that clients ask.
    pub edges: Vec<EdgeGroup>,
    /// What nodes are able to do.
    #[serde(default)]
    pub rules: Rules,
    /// How nodes measure links and each other.
    #[serde(default)]
    pub estimate: EstimateConfig,
    /// What things cost; [`Profile::measured`] where none is given.
    #[serde(default)]
    pub profile: Option<Profile>,
}

/// Clouds that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CloudGroup {
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// Its target: an engine of the profile.
    pub target: String,
    /// The draft model beside it, where there is one.
    #[serde(default)]
    pub draft: Option<String>,
    /// Price of a million tokens, in the operator's unit.
    #[serde(default)]
    pub price_per_mtok: f64,
    /// Its two models take turns on one device, pass by pass. Else each has one of its own.
    #[serde(default)]
    pub one_device: bool,
    /// Cores that its passes, a core each, and all else that it does have in equal shares. None: cores to spare, so that only
    /// passes wait for each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Sessions at once at most.
    #[serde(default = "most_sessions")]
    pub most_sessions: u32,
}

/// Edges that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EdgeGroup {
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// Its draft model: an engine of the profile.
    #[serde(default)]
    pub draft: Option<String>,
    /// A target of its own.
    #[serde(default)]
    pub target: Option<String>,
    /// As a cloud's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Clouds that each of them knows. The first edge knows the first so many, the second those from the second on, and so
    /// round.
    #[serde(default = "one")]
    pub peers: u32,
    /// What the link to each of them is like. Each has jitter of its own, and a trace or a schedule of stalls begins somewhere
    /// else on each.
    #[serde(default)]
    pub link: LinkConfig,
}

/// What nodes are able to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rules {
    /// Media are pruned and made smaller as plans say; else they go whole, whatever is planned.
    pub retention: bool,
    /// The lowest acceptance probability that may be committed unverified, as operators' budgets come to; above 1 none may.
    pub confidence_floor: f64,
    /// There is such a budget: answers that are planned for the edge are held to that floor too, and are the target's where it is
    /// above 1. Else they are free.
    pub budget: bool,
    /// A target that nobody waits for decodes on.
    pub spare: bool,
    /// All edges learn together, instead of each for itself.
    pub learn_together: bool,
    /// Media are brought at once to the peer that a plan for the edge alone names, in case the answer is left to it; else they go
    /// when it is.
    #[serde(skip_serializing_if = "is_off")]
    pub bring: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            retention: true,
            confidence_floor: 2.0,
            budget: false,
            spare: true,
            learn_together: false,
            bring: false,
        }
    }
}

impl Rules {
    pub(crate) fn means(&self) -> Means {
        Means {
            retention: self.retention,
        }
    }
}

fn one() -> u32 {
    1
}

/// What is written without it is read without it.
fn is_off(on: &bool) -> bool {
    !on
}

/// The default of a node's `sessions.most`.
pub(crate) fn most_sessions() -> u32 {
    512
}

impl World {
    /// One edge and one cloud.
    pub fn pair(profile: Profile, draft: &str, target: &str, link: LinkConfig) -> World {
        World {
            clouds: vec![CloudGroup {
                count: 1,
                target: target.to_owned(),
                draft: None,
                price_per_mtok: 0.0,
                one_device: false,
                cores: None,
                most_sessions: most_sessions(),
            }],
            edges: vec![EdgeGroup {
                count: 1,
                draft: Some(draft.to_owned()),
                target: None,
                cores: None,
                peers: 1,
                link,
            }],
            rules: Rules::default(),
            estimate: EstimateConfig::default(),
            profile: Some(profile),
        }
    }

    /// Reads and checks a world in TOML.
    ///
    /// # Errors
    /// [`SimulateError`], naming the field and what is allowed.
    pub fn parse(text: &str) -> Result<World> {
        let world: World = toml::from_str(text).map_err(|error| SimulateError::Syntax {
            what: "world",
            error: Box::new(error),
        })?;
        world.check()?;
        Ok(world)
    }

    /// Edges of all groups.
    pub fn edge_count(&self) -> u32 {
        let counts = self.edges.iter().map(|group| group.count);
        counts.fold(0, u32::saturating_add)
    }

    /// Clouds of all groups.
    pub fn cloud_count(&self) -> u32 {
        let counts = self.clouds.iter().map(|group| group.count);
        counts.fold(0, u32::saturating_add)
    }

    /// Checks every value. Traces of links are read where they are needed.
    ///
    /// # Errors
    /// [`SimulateError`], naming the field and what is allowed.
    pub fn check(&self) -> Result<()> {
        self.costs().map(drop)
    }

    /// The profile in force, once everything has been checked.
    pub(crate) fn costs(&self) -> Result<Profile> {
        let profile = match &self.profile {
            Some(profile) => profile.clone(),
            None => Profile::measured()?,
        };
        profile.check()?;
        for (what, count, least) in [
            ("edges", self.edge_count(), 1),
            ("clouds", self.cloud_count(), 0),
        ] {
            must(
                (least..=MOST_NODES).contains(&count),
                || what.to_owned(),
                || format!("come to {count}; allowed: {least} to {MOST_NODES}"),
            )?;
        }
        for (number, group) in self.clouds.iter().enumerate() {
            let at = |name: &str| format!("clouds[{number}].{name}");
            profile.engine(&group.target, || at("target"))?;
            if let Some(draft) = &group.draft {
                profile.engine(draft, || at("draft"))?;
            }
            within(|| at("price-per-mtok"), group.price_per_mtok, 0.0, 1e9)?;
            check_cores(group.cores, || at("cores"))?;
            let most = group.most_sessions;
            must(
                most > 0,
                || at("most-sessions"),
                || "is 0; allowed: 1 or more".to_owned(),
            )?;
        }
        for (number, group) in self.edges.iter().enumerate() {
            self.check_edges(number, group, &profile)?;
        }
        let floor = self.rules.confidence_floor;
        within(|| "rules.confidence-floor".to_owned(), floor, 0.0, 1e9)?;
        self.estimate
            .check()
            .map_err(|error| SimulateError::Value {
                field: format!("estimate.{}", error.field),
                problem: error.problem,
            })?;
        Ok(profile)
    }

    fn check_edges(&self, number: usize, group: &EdgeGroup, profile: &Profile) -> Result<()> {
        let at = |name: &str| format!("edges[{number}].{name}");
        for (name, engine) in [("draft", &group.draft), ("target", &group.target)] {
            if let Some(engine) = engine {
                profile.engine(engine, || at(name))?;
            }
        }
        must(
            group.draft.is_some() || group.target.is_some(),
            || at("draft"),
            || "is missing, and there is no target; allowed: one of them, or both".to_owned(),
        )?;
        check_cores(group.cores, || at("cores"))?;
        let (peers, most) = (group.peers, self.cloud_count().min(MOST_PEERS));
        must(
            peers <= most,
            || at("peers"),
            || format!("is {peers}; allowed: 0 to {most}, the clouds there are, or {MOST_PEERS}"),
        )?;
        if group.link.up.trace.is_some() || group.link.down.trace.is_some() {
            // It is read when the simulation begins.
            return Ok(());
        }
        Course::pair(&group.link)
            .map(drop)
            .map_err(|error| SimulateError::Link {
                group: number,
                error: Box::new(error),
            })
    }
}

fn check_cores(cores: Option<u32>, field: impl FnOnce() -> String) -> Result<()> {
    let count = cores.unwrap_or(1);
    must((1..=MOST_CORES).contains(&count), field, || {
        format!("is {count}; allowed: 1 to {MOST_CORES}, or nothing where it has cores to spare")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[clouds]]\ntarget = 'paced-target'\n[[edges]]\ndraft = 'paced-draft'\n";

    #[test]
    fn a_plain_world_is_allowed_and_what_cannot_be_is_named() {
        let world = World::parse(GOOD).unwrap();
        assert_eq!((world.edge_count(), world.cloud_count()), (1, 1));
        assert_eq!((world.edges[0].cores, world.rules.bring), (None, false));
        let told = World::parse(&format!("{GOOD}cores = 2\n[rules]\nbring = true")).unwrap();
        assert_eq!((told.edges[0].cores, told.rules.bring), (Some(2), true));
        // What is left out is not written either.
        let rules = toml::to_string(&world.rules).unwrap();
        assert!(!rules.contains("bring"), "{rules}");
        assert!(
            toml::to_string(&told.rules)
                .unwrap()
                .contains("bring = true")
        );
        let link = |text: &str| format!("{GOOD}[edges.link]\n{text}");
        for (text, named) in [
            (
                GOOD.replace("paced-target", "none"),
                "clouds[0].target: is \"none\"; allowed: an engine",
            ),
            (
                GOOD.replace("draft = 'paced-draft'", ""),
                "edges[0].draft: is missing",
            ),
            (
                format!("{GOOD}peers = 2"),
                "edges[0].peers: is 2; allowed: 0 to 1",
            ),
            (format!("{GOOD}count = 0"), "edges: come to 0"),
            (
                format!("{GOOD}count = 4000000000"),
                "edges: come to 4000000000",
            ),
            (
                GOOD.replace("[[edges]]", "most-sessions = 0\n[[edges]]"),
                "clouds[0].most-sessions: is 0",
            ),
            (
                GOOD.replace("[[edges]]", "cores = 0\n[[edges]]"),
                "clouds[0].cores: is 0; allowed: 1 to 1024",
            ),
            (
                format!("{GOOD}cores = 2000"),
                "edges[0].cores: is 2000; allowed: 1 to 1024",
            ),
            (
                format!("{GOOD}[rules]\nconfidence-floor = nan"),
                "rules.confidence-floor: is NaN",
            ),
            (
                format!("{GOOD}[rules]\ncolour = 1"),
                "the world cannot be read",
            ),
            (
                format!("{GOOD}[estimate]\nweight = 0.0"),
                "estimate.weight: is 0",
            ),
            (
                link("up = { delay-ms = -1.0 }"),
                "edges[0].link.up.delay-ms: is -1",
            ),
            (
                link("cuts = [{ at-ms = 5 }]"),
                "edges[0].link.cuts: has entries",
            ),
            (
                link("stalls = [{ at-ms = 0, for-ms = 5 }]\nrepeat-ms = 5"),
                "edges[0].link.stalls",
            ),
        ] {
            let error = World::parse(&text).unwrap_err().to_string();
            assert!(
                error.starts_with(named),
                "{error}\nshould begin with {named}"
            );
        }
    }
}
