//! Whom a cloud's target works for, who may have the time that it has to spare, and when sessions are to be told of the time.

use msao_session::cloud::Event as CloudEvent;

use super::{Event, Simulation};
use crate::slab::Key;

impl Simulation<'_> {
    /// Counts a session among those for which the target works, or not any more.
    pub(super) fn set_busy(&mut self, key: Key, busy: bool) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let Some(served) = run.cloud.as_mut() else {
            return;
        };
        if std::mem::replace(&mut served.busy, busy) == busy {
            return;
        }
        let Some(way) = run.way else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(way.node) {
            let before = node.busy;
            node.busy = match busy {
                true => before + 1,
                false => before.saturating_sub(1),
            };
            // With two at work, one more or less changes nothing for anybody.
            let changes = before.min(node.busy) < 2 && self.rules.spare;
            if changes && self.flapped.last() != Some(&way.node) {
                self.flapped.push(way.node);
            }
        }
    }

    /// Tells a node's sessions whether the target has time that nobody waits for.
    pub(super) fn tell_spare(&mut self, number: usize) {
        if !self.rules.spare {
            return;
        }
        let Some(node) = self.nodes.get(number) else {
            return;
        };
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        keys.extend_from_slice(&node.sessions);
        for key in keys.drain(..) {
            let busy = self.nodes.get(number).map_or(0, |node| node.busy);
            let Some(served) = self.served(key) else {
                continue;
            };
            let others = busy.saturating_sub(u32::from(served.busy));
            let spare = others == 0;
            if std::mem::replace(&mut served.spare, spare) != spare {
                self.tell_cloud(key, CloudEvent::Spare(spare));
            }
        }
        self.keys = keys;
    }

    pub(super) fn set_cloud_tick(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(served) = self.served(key) else {
            return;
        };
        if let Some(due_ms) = served.machine.due_ms().map(|due_ms| due_ms.max(now_ms))
            && served.tick_ms.is_none_or(|tick_ms| due_ms < tick_ms)
        {
            served.tick_ms = Some(due_ms);
            self.agenda.at(due_ms, Event::CloudTick(key));
        }
    }

    pub(super) fn cloud_tick(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(served) = self.served(key) else {
            return;
        };
        if served.tick_ms != Some(now_ms) {
            return;
        }
        served.tick_ms = None;
        match served
            .machine
            .due_ms()
            .is_some_and(|due_ms| due_ms <= now_ms)
        {
            true => {
                self.tell_cloud(key, CloudEvent::Tick);
                self.forget(key);
            }
            false => self.set_cloud_tick(key),
        }
    }
}
