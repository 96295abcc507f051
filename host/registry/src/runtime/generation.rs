//! One immutable set of plug-ins and parameters, and how it fares.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Ahead, Probe};
use msao_core::offload::record::GenerationId;
use msao_sandbox::Export;
use msao_state::{Cells, CellsKey};

use crate::breaker::{Breaker, Event, Permit};
use crate::budget::Budget;
use crate::config::{BreakerConfig, BudgetConfig};
use crate::deployment::Spec;
use crate::plugin::{PolicyPlugin, PostProcessorPlugin};

/// What records call a call that was not made because the generation is withdrawn.
pub(crate) const REVOKED: &str = "revoked";

/// A plug-in with what it is given beside the request.
pub(crate) struct Part<P: ?Sized> {
    pub(crate) plugin: Arc<P>,
    pub(crate) params: Vec<f64>,
    pub(crate) cells: Cells,
    pub(crate) key: CellsKey,
}

/// Counts generations that are held by anyone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live(Arc<AtomicU64>);

impl Live {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn another(&self) -> Alive {
        self.0.fetch_add(1, Ordering::Relaxed);
        Alive(self.clone())
    }
}

struct Alive(Live);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A breaker, and the inputs that failed since the last success.
#[derive(Debug, Default)]
struct Tripping {
    breaker: Breaker,
    failing: HashSet<Digest>,
}

/// An export's breaker. While nothing has failed, asking costs one read.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    troubled: AtomicBool,
    breaker: Mutex<Tripping>,
    pub(crate) calls: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Calls that the open breaker kept away.
    pub(crate) skipped: AtomicU64,
}

impl Guard {
    /// `content`: what the call that is reported was about.
    fn advance(
        &self,
        event: Event,
        content: Option<Digest>,
        now_ms: u64,
        config: &BreakerConfig,
    ) -> Option<Permit> {
        let mut tripping = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = matches!(tripping.breaker, Breaker::Closed { .. });
        if closed
            && matches!(event, Event::Failed(_))
            && content.is_some_and(|content| !tripping.failing.insert(content))
        {
            return None;
        }
        let (next, permit) = tripping.breaker.advance(event, now_ms, config);
        tripping.breaker = next;
        if next == Breaker::default() || !matches!(next, Breaker::Closed { .. }) {
            tripping.failing.clear();
        }
        self.troubled
            .store(next != Breaker::default(), Ordering::Release);
        permit
    }

    pub(crate) fn ask(
        &self,
        now_ms: impl FnOnce() -> u64,
        config: &BreakerConfig,
    ) -> Option<Permit> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.troubled.load(Ordering::Acquire) {
            return Some(Permit::Normal);
        }
        let permit = self.advance(Event::Asked, None, now_ms(), config);
        if permit.is_none() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    pub(crate) fn succeeded(
        &self,
        permit: Permit,
        now_ms: impl FnOnce() -> u64,
        config: &BreakerConfig,
    ) {
        if self.troubled.load(Ordering::Acquire) {
            self.advance(Event::Succeeded(permit), None, now_ms(), config);
        }
    }

    /// A call about `content` failed; `blame`: and that was the plug-in's fault.
    pub(crate) fn failed(
        &self,
        permit: Permit,
        blame: bool,
        content: Digest,
        now_ms: u64,
        config: &BreakerConfig,
    ) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let event = if blame {
            Event::Failed(permit)
        } else {
            Event::Void(permit)
        };
        self.advance(event, Some(content), now_ms, config);
    }

    pub(crate) fn state(&self) -> Breaker {
        let tripping = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        tripping.breaker
    }
}

/// A generation, ready to be called.
pub(crate) struct Generation {
    pub(crate) spec: Spec,
    pub(crate) id: GenerationId,
    pub(crate) policy: Option<Part<dyn PolicyPlugin>>,
    pub(crate) postprocessor: Option<Part<dyn PostProcessorPlugin>>,
    guards: [Guard; Export::ALL.len()],
    /// It was rolled back, and why: it gets no request any more, whatever a table says.
    pub(crate) condemned: OnceLock<String>,
    /// A key that signed it was revoked: not even requests under way call it any more.
    withdrawn: AtomicBool,
    pub(crate) requests: AtomicU64,
    /// Of them, those from which an open breaker kept a call away: the budget's share is not of these.
    pub(crate) spared: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    budget: Mutex<Budget>,
    _alive: Alive,
}

impl Generation {
    pub(crate) fn new(
        spec: Spec,
        policy: Option<Part<dyn PolicyPlugin>>,
        postprocessor: Option<Part<dyn PostProcessorPlugin>>,
        live: &Live,
    ) -> Generation {
        Generation {
            id: spec.id(),
            spec,
            policy,
            postprocessor,
            guards: Default::default(),
            condemned: OnceLock::new(),
            withdrawn: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            spared: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            budget: Mutex::default(),
            _alive: live.another(),
        }
    }

    pub(crate) fn guard(&self, export: Export) -> &Guard {
        let [score, plan, step, observe, explain] = &self.guards;
        match export {
            Export::Score => score,
            Export::Plan => plan,
            Export::Step => step,
            Export::Observe => observe,
            Export::Explain => explain,
        }
    }

    /// Whether the policy wants the probe. The fallback does not.
    pub(crate) fn probe(&self) -> Probe {
        (self.policy.as_ref()).map_or(Probe::None, |policy| policy.plugin.manifest().probe)
    }

    /// What the policy has begun at a peer while the probe runs. The fallback, nothing.
    pub(crate) fn ahead(&self) -> Ahead {
        (self.policy.as_ref()).map_or(Ahead::None, |policy| policy.plugin.manifest().ahead)
    }

    /// The cells that it learns into.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &CellsKey> {
        let policy = self.policy.as_ref().map(|part| &part.key);
        policy
            .into_iter()
            .chain(self.postprocessor.as_ref().map(|part| &part.key))
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.get().is_some()
    }

    /// Has nobody call it any more.
    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Requests about which it was asked.
    fn asked(&self) -> u64 {
        let spared = self.spared.load(Ordering::Relaxed);
        self.requests.load(Ordering::Relaxed).saturating_sub(spared)
    }

    /// Charges it with a failure on the request of that content. True: its budget is spent.
    pub(crate) fn charge(&self, content: Digest, now_ms: u64, config: &BudgetConfig) -> bool {
        let total = self.asked();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.failed(content, now_ms, total, config)
    }

    pub(crate) fn tick(&self, now_ms: u64, config: &BudgetConfig) {
        let total = self.asked();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.tick(now_ms, total, config);
    }

    /// Inputs that it failed on, and how many it may not fail on.
    pub(crate) fn budget(&self, config: &BudgetConfig) -> (u64, u64) {
        let total = self.asked();
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        (budget.spent(), budget.allowed(total, config))
    }
}
