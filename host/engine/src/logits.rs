//! What a pass gives: logits of many sequences in one piece of memory.

use tch::{Kind, Tensor};

use crate::cuda;
use crate::error::{EngineError, Result};

/// The logits of a batch, entry by entry. They lie in one matrix as the model made it: at 150,000 ids a row, copying
/// them out costs as much as a layer.
#[derive(Debug)]
pub struct Logits {
    /// `[rows, vocab_size]`, f32, contiguous, on the processor; `None` where no row was wanted.
    rows: Option<Tensor>,
    /// For each entry where its rows start, and the end.
    starts: Vec<usize>,
    width: usize,
}

impl Logits {
    /// `rows`: `[rows, vocab_size]` of any kind on any device; `counts`: rows of each entry.
    pub(crate) fn new(rows: &Tensor, counts: &[usize]) -> Result<Self> {
        let rows = cuda::fetch(&rows.f_to_kind(Kind::Float)?.f_contiguous()?)?;
        let mut logits = Logits::nothing(0);
        let mut end = 0;
        for count in counts {
            end += count;
            logits.starts.push(end);
        }
        match rows.size().as_slice() {
            [all, width] if *all as usize == end => logits.width = *width as usize,
            other => {
                return Err(EngineError::request(format!(
                    "a pass gave logits of shape {other:?} for {end} rows"
                )));
            }
        }
        logits.rows = Some(rows);
        Ok(logits)
    }

    /// No rows for each of `entries`.
    pub(crate) fn nothing(entries: usize) -> Self {
        Logits {
            rows: None,
            starts: vec![0; entries + 1],
            width: 0,
        }
    }

    /// Entries of the batch.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether the batch had no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One entry's rows one after the other, `vocab_size` values each; empty if it has none.
    pub fn of(&self, entry: usize) -> &[f32] {
        let (Some(&start), Some(&end)) = (self.starts.get(entry), self.starts.get(entry + 1))
        else {
            return &[];
        };
        let Some(rows) = &self.rows else {
            return &[];
        };
        // SAFETY: the tensor is a contiguous f32 matrix on the processor (made so in `new`) of `width` columns and as many
        // rows as the last start says; nobody writes to it, and it lives as long as `self`.
        let all = unsafe {
            std::slice::from_raw_parts(rows.data_ptr().cast::<f32>().cast_const(), rows.numel())
        };
        all.get(start * self.width..end * self.width)
            .unwrap_or_default()
    }

    /// Every entry's rows.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.len()).map(|entry| self.of(entry))
    }
}
