//! Matrices of 8-bit integers on libtorch's operations: for GPUs, and for processors without our own kernels.
//!
//! They hold the same model as a packed matrix does: a row's scale is its largest magnitude / 127, its values are rounded
//! to nearest even. A product widens the matrix piece by piece, so that it is never there as a whole. On a processor it is
//! computed in f32, which is fast on all of them; but a few rows in bf16 go through libtorch's own product of such
//! matrices, which widens in registers. (That product is not used for f32, where it is not vectorised: sixteen times as
//! slow as a plain product on a processor with AVX2.)

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::nn::bytes;

/// Most values that are widened at once on a processor: a megabyte, which stays in its cache.
const PIECE: usize = 1 << 18;
/// On a GPU, where asking for a piece takes longer than widening it.
const DEVICE_PIECE: usize = 1 << 25;
/// Values of a row that libtorch's product reads at once; it has no other way to read the end of a row.
const LANES: i64 = 64;
/// Up to so many rows of bf16 libtorch's product is faster than widening.
const FEW_ROWS: i64 = 8;
/// The largest magnitude of a value.
const MOST: f64 = 127.0;

/// A matrix `[out, in]`.
#[derive(Debug)]
pub(crate) struct Quantized {
    /// `[out, in]`, int8, row-major.
    values: Tensor,
    /// `[out]`, f32.
    scales: Tensor,
    /// `[out]` ones in bf16, where libtorch's product is used: it takes scales in no other kind, and rounding ours to it
    /// would make another model.
    ones: Option<Tensor>,
}

impl Quantized {
    /// Zeros, for activations of `kind`.
    pub fn new(outputs: usize, inputs: usize, (kind, device): (Kind, Device)) -> Result<Self> {
        let (outputs, inputs) = (outputs as i64, inputs as i64);
        let few = device == Device::Cpu && inputs % LANES == 0 && kind == Kind::BFloat16;
        Ok(Quantized {
            values: Tensor::f_zeros([outputs, inputs], (Kind::Int8, device))?,
            scales: Tensor::f_zeros([outputs], (Kind::Float, device))?,
            ones: if few {
                Some(Tensor::f_ones([outputs], (kind, device))?)
            } else {
                None
            },
        })
    }

    /// Quantises `rows` `[n, in]`, of any floating kind on any device, into the rows from `first` on.
    pub fn set_rows(&mut self, first: i64, rows: &Tensor) -> Result<()> {
        let (count, _) = rows.size2()?;
        let step = self.piece_rows();
        let mut done = 0;
        while done < count {
            let piece = step.min(count - done);
            let x = rows
                .f_narrow(0, done, piece)?
                .f_to_device(self.values.device())?
                .f_to_kind(Kind::Float)?;
            let scales = x
                .f_abs()?
                .f_amax([1i64].as_slice(), false)?
                .f_div_scalar(MOST)?;
            // A row of zeros stays one whatever it is divided by.
            let divisor = scales.f_where_self(
                &scales.f_gt(0.0)?,
                &Tensor::f_ones([1], (Kind::Float, scales.device()))?,
            )?;
            let q = x
                .f_div(&divisor.f_unsqueeze(1)?)?
                .f_round()?
                .f_clamp(-MOST, MOST)?;
            let place = first + done;
            self.values.f_narrow(0, place, piece)?.f_copy_(&q)?;
            self.scales.f_narrow(0, place, piece)?.f_copy_(&scales)?;
            done += piece;
        }
        Ok(())
    }

    /// Rows that are widened at once.
    fn piece_rows(&self) -> i64 {
        let inputs = self.values.size().last().copied().unwrap_or(1);
        let piece = match self.values.device() {
            Device::Cpu => PIECE,
            _ => DEVICE_PIECE,
        };
        (piece as i64 / inputs.max(1)).max(1)
    }

    /// `x W^T + b` for `x` `[.., in]`, as values of `kind`.
    pub fn product(&self, x: &Tensor, bias: Option<&Tensor>, kind: Kind) -> Result<Tensor> {
        let (outputs, inputs) = self.values.size2()?;
        let mut size = x.size();
        let flat = x.f_reshape([-1, inputs])?.f_contiguous()?;
        let rows = flat.size().first().copied().unwrap_or(0);
        let y = match &self.ones {
            Some(ones) if ones.kind() == x.kind() && rows <= FEW_ROWS => {
                let y = flat.f_internal_weight_int8pack_mm(&self.values, ones)?;
                self.finish(&y, 0, outputs, bias, kind)?
            }
            _ if flat.device() == Device::Cpu => {
                self.product_in_pieces(&flat.f_to_kind(Kind::Float)?, bias, kind)?
            }
            _ => self.product_in_pieces(&flat, bias, kind)?,
        };
        if let Some(last) = size.last_mut() {
            *last = outputs;
        }
        Ok(y.f_reshape(&size)?)
    }

    fn product_in_pieces(&self, x: &Tensor, bias: Option<&Tensor>, kind: Kind) -> Result<Tensor> {
        let (outputs, _) = self.values.size2()?;
        let rows = x.size().first().copied().unwrap_or(0);
        let step = self.piece_rows();
        if outputs <= step {
            return self.product_of(x, 0, outputs, bias, kind);
        }
        let y = Tensor::f_empty([rows, outputs], (kind, x.device()))?;
        let mut first = 0;
        while first < outputs {
            let count = step.min(outputs - first);
            let part = self.product_of(x, first, count, bias, kind)?;
            y.f_narrow(1, first, count)?.f_copy_(&part)?;
            first += count;
        }
        Ok(y)
    }

    /// The outputs `[first, first + count)` of a product.
    fn product_of(
        &self,
        x: &Tensor,
        first: i64,
        count: i64,
        bias: Option<&Tensor>,
        kind: Kind,
    ) -> Result<Tensor> {
        let values = self.values.f_narrow(0, first, count)?;
        if x.kind() == Kind::Half {
            // Sums of unscaled values would leave its range: here the scale is part of the widened weight.
            let scales = self.scales.f_narrow(0, first, count)?.f_unsqueeze(1)?;
            let weights = values.f_to_kind(Kind::Float)?.f_mul(&scales)?;
            let bias = match bias {
                Some(bias) => Some(bias.f_narrow(0, first, count)?.f_to_kind(Kind::Half)?),
                None => None,
            };
            let y = x.f_linear(&weights.f_to_kind(Kind::Half)?, bias.as_ref())?;
            return Ok(y.f_to_kind(kind)?);
        }
        let y = x.f_linear::<&Tensor>(&values.f_to_kind(x.kind())?, None)?;
        self.finish(&y, first, count, bias, kind)
    }

    /// Scales sums, adds the bias and rounds to `kind`.
    fn finish(
        &self,
        sums: &Tensor,
        first: i64,
        count: i64,
        bias: Option<&Tensor>,
        kind: Kind,
    ) -> Result<Tensor> {
        let mut y = sums
            .f_to_kind(Kind::Float)?
            .f_mul(&self.scales.f_narrow(0, first, count)?)?;
        if let Some(bias) = bias {
            let bias = bias.f_narrow(0, first, count)?.f_to_kind(Kind::Float)?;
            y = y.f_add_(&bias)?;
        }
        Ok(y.f_to_kind(kind)?)
    }

    /// The rows `ids` (`[ids]`, on the matrix's device), dequantised: `[ids, in]`.
    pub fn rows(&self, ids: &Tensor, kind: Kind) -> Result<Tensor> {
        let scales = self.scales.f_index_select(0, ids)?.f_unsqueeze(1)?;
        let values = self.values.f_index_select(0, ids)?;
        Ok(values
            .f_to_kind(Kind::Float)?
            .f_mul(&scales)?
            .f_to_kind(kind)?)
    }

    pub fn outputs(&self) -> usize {
        self.values.size().first().map_or(0, |&n| n as usize)
    }

    /// Bytes of values and scales.
    pub fn bytes(&self) -> u64 {
        let ones = self.ones.as_ref().map_or(0, bytes);
        bytes(&self.values) + bytes(&self.scales) + ones
    }

    /// The same matrix in the same memory.
    pub fn share(&self) -> Self {
        Quantized {
            values: self.values.shallow_clone(),
            scales: self.scales.shallow_clone(),
            ones: self.ones.as_ref().map(Tensor::shallow_clone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of both signs and all sizes, a row of zeros among them.
    fn matrix(outputs: i64, inputs: i64) -> Tensor {
        tch::manual_seed(3);
        let x = Tensor::randn([outputs, inputs], (Kind::Float, Device::Cpu));
        let _ = x.get(outputs / 2).zero_();
        x * Tensor::randn([outputs, 1], (Kind::Float, Device::Cpu))
    }

    fn quantized(weights: &Tensor, kind: Kind) -> Quantized {
        let (outputs, inputs) = weights.size2().unwrap();
        let mut made =
            Quantized::new(outputs as usize, inputs as usize, (kind, Device::Cpu)).unwrap();
        // In pieces, as files hold them.
        let cut = outputs / 3;
        made.set_rows(0, &weights.narrow(0, 0, cut)).unwrap();
        made.set_rows(cut, &weights.narrow(0, cut, outputs - cut))
            .unwrap();
        made
    }

    #[test]
    fn a_value_is_off_by_at_most_half_a_step_of_its_row() {
        let weights = matrix(50, 96);
        let made = quantized(&weights, Kind::Float);
        let ids = Tensor::arange(50, (Kind::Int64, Device::Cpu));
        let off = (made.rows(&ids, Kind::Float).unwrap() - &weights).abs();
        let step = weights.abs().amax([1i64].as_slice(), true) / 127.0;
        let worst = (off - step * 0.5001).max().double_value(&[]);
        assert!(worst <= 0.0, "{worst}");
        let ends = made.values.abs().amax([1i64].as_slice(), false);
        let full = ends.eq(127).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(full, 49, "every row but the one of zeros uses its range");
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let row = Tensor::from_slice(&[127.0f32, 0.5, 1.5, -2.5, -127.0, 126.5]).reshape([1, 6]);
        let made = quantized(&Tensor::cat(&[&row, &row, &row], 0), Kind::Float);
        let values = made.values.get(2).to_kind(Kind::Int64);
        let values: Vec<i64> = values.try_into().unwrap();
        assert_eq!(values, [127, 0, 2, -2, -127, 126]);
    }

    #[test]
    fn a_product_is_the_dequantised_matrix_s() {
        // Widths that libtorch's own product takes and one that it does not; outputs in one piece and in several.
        for (outputs, inputs) in [(70, 128), (70, 100), (5_000, 128)] {
            let weights = matrix(outputs, inputs);
            let bias = Tensor::randn([outputs], (Kind::Float, Device::Cpu));
            for rows in [1, 3, FEW_ROWS, FEW_ROWS + 1, 40] {
                for (kind, tolerance) in [
                    (Kind::Float, 1e-5),
                    (Kind::BFloat16, 1e-2),
                    (Kind::Half, 2e-3),
                ] {
                    let made = quantized(&weights, kind);
                    let ids = Tensor::arange(outputs, (Kind::Int64, Device::Cpu));
                    let plain = made.rows(&ids, Kind::Float).unwrap();
                    // Large enough that sums of unscaled values would not fit f16.
                    let x = Tensor::randn([rows, inputs], (Kind::Float, Device::Cpu)) * 40.0;
                    let x = x.to_kind(kind);
                    let expected = x.to_kind(Kind::Float).linear(&plain, Some(&bias));
                    let bias = bias.to_kind(kind);
                    let y = made.product(&x, Some(&bias), kind).unwrap();
                    assert_eq!((y.size(), y.kind()), (expected.size(), kind));
                    // As on a GPU: in the activations' own kind.
                    let own = made.product_in_pieces(&x, Some(&bias), kind).unwrap();
                    let size = expected.abs().max().double_value(&[]);
                    for y in [y, own] {
                        let off = (y.to_kind(Kind::Float) - &expected).abs().max();
                        let off = off.double_value(&[]) / size;
                        assert!(
                            off < tolerance,
                            "{outputs}x{inputs}, {rows} rows, {kind:?}: {off}"
                        );
                    }
                }
            }
        }
    }
}
