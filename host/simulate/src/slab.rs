//! Things that come and go, under keys that are never taken for those of an earlier thing.

/// Names a thing for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    slot: u32,
    turn: u32,
}

impl Key {
    /// Sixteen bytes that no other thing has.
    pub fn name(self) -> [u8; 16] {
        ((u128::from(self.turn) << 32) | u128::from(self.slot)).to_le_bytes()
    }
}

#[derive(Debug)]
struct Slot<T> {
    /// Things that were here before.
    turn: u32,
    value: Option<T>,
}

/// Things by key. A place is used again, so that memory follows what is there at once.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub fn new() -> Slab<T> {
        Slab {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub fn insert(&mut self, value: T) -> Key {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot {
                    turn: 0,
                    value: None,
                });
                (self.slots.len() - 1) as u32
            }
        };
        let mut turn = 0;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            turn = place.turn;
            place.value = Some(value);
        }
        Key { slot, turn }
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let place = self.slots.get(key.slot as usize)?;
        place.value.as_ref().filter(|_| place.turn == key.turn)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.slots.get_mut(key.slot as usize)?;
        let turn = place.turn;
        place.value.as_mut().filter(|_| turn == key.turn)
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.slots.get_mut(key.slot as usize)?;
        if place.turn != key.turn {
            return None;
        }
        let value = place.value.take()?;
        place.turn = place.turn.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    pub fn entries(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().zip(0..).filter_map(|(place, slot)| {
            let turn = place.turn;
            Some((Key { slot, turn }, place.value.as_ref()?))
        })
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_what_is_gone_finds_nothing() {
        let mut slab = Slab::new();
        let (first, second) = (slab.insert("a"), slab.insert("b"));
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let third = slab.insert("c");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(
            (slab.get(second), slab.get(third)),
            (Some(&"b"), Some(&"c"))
        );
        let all: Vec<_> = slab.entries().collect();
        assert_eq!(all, [(third, &"c"), (second, &"b")]);
        assert!(!slab.is_empty());
        assert_eq!(
            (slab.remove(second), slab.remove(third)),
            (Some("b"), Some("c"))
        );
        assert!(slab.is_empty());
    }
}
