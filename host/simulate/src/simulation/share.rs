//! What nodes do takes time: on cores that all of a node's work shares, or on a core of its own where a node has cores to spare.

use super::{Event, Simulation};
use crate::cores::Cores;
use crate::retention::MediaTokens;

impl Simulation<'_> {
    /// Has a node work until a moment, when something happens; later, where its cores have other work too.
    pub(super) fn works(&mut self, node: usize, until_ms: f64, event: Event) {
        let now_ms = self.now_ms();
        if until_ms > now_ms
            && let Some(cores) = self.cores.get_mut(node).and_then(Option::as_mut)
        {
            cores.begin(now_ms, until_ms - now_ms, event);
            self.shared.push(node);
            return;
        }
        self.agenda.at(until_ms, event);
    }

    /// Has a node do for so long what comes before a model may read a prompt with these media: those are decoded, where its cores
    /// are shared, by as many requests at once as there are cores.
    pub(super) fn prepares(
        &mut self,
        node: usize,
        takes_ms: f64,
        media: MediaTokens,
        event: Event,
    ) {
        let now_ms = self.now_ms();
        if media.sum() > 0
            && let Some(cores) = self.cores.get_mut(node).and_then(Option::as_mut)
        {
            cores.decode(now_ms, takes_ms, event);
            self.shared.push(node);
            return;
        }
        self.works(node, now_ms + takes_ms, event);
    }

    /// Has a node work for so long with nobody waiting for it: that is nothing, where it has cores to spare.
    pub(super) fn also_works(&mut self, node: usize, takes_ms: f64) {
        let shared = self.cores.get(node).is_some_and(Option::is_some);
        if shared && takes_ms > 0.0 {
            self.works(node, self.now_ms() + takes_ms, Event::Nothing);
        }
    }

    pub(super) fn cores_are_due(&mut self, node: usize, round: u32) {
        let now_ms = self.now_ms();
        let cores = self.cores.get_mut(node).and_then(Option::as_mut);
        if let Some(event) = cores.and_then(|cores| cores.over(now_ms, round)) {
            self.shared.push(node);
            self.happens(event);
        }
    }

    /// Notes when the next job is over on cores on which jobs have come or gone: once all of them have that do so at this moment.
    pub(super) fn note_cores(&mut self) {
        while let Some(node) = self.shared.pop() {
            let cores = self.cores.get_mut(node).and_then(Option::as_mut);
            if let Some((due_ms, round)) = cores.and_then(Cores::due) {
                self.agenda.at(due_ms, Event::Cores(node as u32, round));
            }
        }
    }
}
