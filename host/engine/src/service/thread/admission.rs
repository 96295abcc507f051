//! Who is let in, and when: first come first served, as long as the cache and the logits have room.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Engine;
use crate::media_cache::MediaKeys;
use crate::service::client::{Client, Reply};
use crate::service::{MediaBytes, Open, ServiceError, Ticket};

/// Rows of logits that a session may keep.
const KEPT_ROWS: u64 = 2;

/// A prompt that is to be let in.
pub(in crate::service) struct Waiting {
    pub open: Box<Open>,
    /// What it takes of the cache: of its prompt what is read, and its reserve.
    pub tokens: usize,
    /// The hashes of its media where the cache wants them.
    pub keys: Option<MediaKeys>,
    pub reply: Reply<Ticket>,
    /// Its media's share of `waiting_bytes`, until they have been encoded or it is refused.
    pub held: MediaBytes,
}

impl Engine {
    /// Lets in what waits, first come first served, as long as there is room, and refuses those for whom there is not
    /// even room to wait.
    pub(super) fn admit(&mut self) {
        // Who has given up keeps nobody else out.
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        while let Some(first) = self.waiting.front() {
            // An empty runner takes whatever its cache can hold: `Service::open` has seen to that.
            let has_room = self.runner.fits(first.tokens) && self.logits_fit();
            if !self.clients.is_empty() && !has_room {
                break;
            }
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            let Waiting {
                open,
                keys,
                reply,
                held,
                ..
            } = waiting;
            let Open {
                inputs,
                sampler,
                reserve,
                options,
                end_of_sequence,
                tell,
            } = *open;
            let opened = self.with_room(true, |engine| {
                let (inputs, keys) = (Arc::clone(&inputs), keys.clone());
                engine.runner.open_hashed(inputs, keys, reserve, &options)
            });
            match opened {
                Err(error) => drop(reply.send(Err(error.into()))),
                Ok(sequence) => {
                    let (mut client, gone) =
                        Client::new(sequence, sampler, end_of_sequence, tell, reserve);
                    client.media = Some(held);
                    let ticket = self.enter(client, gone);
                    // Where nobody takes the ticket its drop ends the session.
                    let _gone = reply.send(Ok(ticket));
                }
            }
        }
        let most = self.options.waiting;
        for refused in self.waiting.drain(most.min(self.waiting.len())..) {
            let full = ServiceError::Overloaded {
                limit: "requests that wait (waiting)",
                most: most as u64,
            };
            let _gone = refused.reply.send(Err(full));
        }
    }

    /// Bytes of logits that the open sessions keep at most: those to choose the next token by, and those after the
    /// prompt, to which an answer can be taken back.
    pub(super) fn kept_logits(&self) -> u64 {
        self.clients.len() as u64 * self.session_logits()
    }

    fn session_logits(&self) -> u64 {
        let row = size_of::<f32>() * self.runner.model().config().text.vocab_size;
        KEPT_ROWS * row as u64
    }

    /// Whether one more session's logits fit.
    pub(super) fn logits_fit(&self) -> bool {
        self.kept_logits() + self.session_logits() <= self.options.logits_bytes
    }

    pub(super) fn enter(&mut self, client: Client, gone: Arc<AtomicBool>) -> Ticket {
        let id = self.next;
        self.next += 1;
        self.clients.insert(id, client);
        Ticket { id, gone }
    }
}
