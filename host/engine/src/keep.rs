//! What is read of a prompt's media.

use crate::error::{EngineError, Result};
use crate::prompt::Item;

/// Which tokens of each media item are read; text always is.
///
/// One entry an item, in the order in which they stand in the prompt ([`crate::items`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// For each item the numbers of the tokens kept, rising, from 0 to its number of tokens less one; `None` keeps
    /// all, an empty list drops the item.
    pub items: Vec<Option<Vec<u32>>>,
}

impl Keep {
    /// Holds the list against the items of a prompt and gives the places kept, text included.
    pub(crate) fn places(&self, items: &[Item], tokens: usize) -> Result<Vec<usize>> {
        if self.items.len() != items.len() {
            return Err(EngineError::request(format!(
                "the keep list has {} items, the prompt {}",
                self.items.len(),
                items.len()
            )));
        }
        let mut kept = vec![true; tokens];
        for (number, (item, keep)) in items.iter().zip(&self.items).enumerate() {
            let Some(keep) = keep else { continue };
            let rising = keep.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
            let inside = keep
                .last()
                .is_none_or(|&last| (last as usize) < item.places.len());
            if !rising || !inside {
                return Err(EngineError::request(format!(
                    "the keep list of item {number} must rise and stay below its {} tokens",
                    item.places.len()
                )));
            }
            for place in item.places.clone() {
                if let Some(kept) = kept.get_mut(place) {
                    *kept = false;
                }
            }
            for &token in keep {
                if let Some(kept) = kept.get_mut(item.places.start + token as usize) {
                    *kept = true;
                }
            }
        }
        let places = kept.iter().enumerate().filter(|(_, kept)| **kept);
        Ok(places.map(|(place, _)| place).collect())
    }
}
