//! A twin's tensors: which there are, what random values they hold, and their file, written as they are made.

use std::io::{BufWriter, Write};
use std::path::Path;

use msao_core::sampling::philox4x32_10;
use serde_json::{Map, json};

use super::cannot_write;
use crate::config::{AudioConfig, ModelConfig, TextConfig, VisionConfig};
use crate::error::Result;

/// Values made at a time: small enough for any machine, large enough for its threads.
const BLOCK: usize = 1 << 20;

/// Spread of the embedding. Small beside what the layers add (about 1 each), or a tied head would choose the token that
/// it has just read.
const EMBEDDING: f32 = 0.02;

/// The root mean square of `silu(g) * u` for independent standard normal `g` and `u` is 0.6; `down_proj` makes up for
/// it, so that every layer adds about 1.
const GATED: f32 = 0.6;

/// Type of the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }

    pub fn hugging_face(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }

    /// The nearest value that the type holds.
    fn round(self, value: f32) -> f32 {
        match self {
            Dtype::F32 => value,
            Dtype::Bf16 => f32::from_bits(u32::from(bf16_bits(value)) << 16),
        }
    }
}

/// The upper half of a finite f32, rounded to nearest, ties to even.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    /// The same everywhere.
    Constant(f32),
    /// Uniform around 0 with this standard deviation. A matrix of many small random terms acts the same whatever their
    /// distribution, and this one needs no function that machines compute differently.
    Random(f32),
}

/// One tensor.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub name: String,
    pub shape: Vec<usize>,
    pub fill: Fill,
    /// Whether rows of [`Plan::silent_rows`] are zero.
    by_token: bool,
}

impl Spec {
    fn new(name: String, shape: &[usize], fill: Fill) -> Self {
        Spec {
            name,
            shape: shape.to_vec(),
            fill,
            by_token: false,
        }
    }

    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A model to be written.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    pub config: &'a ModelConfig,
    pub seed: u64,
    pub dtype: Dtype,
    /// Layers that are the draft's too.
    pub draft_layers: usize,
    /// Special tokens: their rows of embedding and head are zero, so that no answer holds one or ends by one.
    pub silent_rows: &'a [u32],
    /// What the layers behind the draft's add, in units of what the draft's add.
    pub scale: f64,
}

impl Plan<'_> {
    /// All tensors, in the order of the file.
    pub fn specs(&self) -> Vec<Spec> {
        let text = &self.config.text;
        let mut specs = vec![self.embedding(), self.norm()];
        specs.extend(self.head());
        for layer in 0..text.layers {
            specs.extend(self.layer(layer, self.layer_scale(layer)));
        }
        specs.extend(vision(&self.config.vision));
        specs.extend(self.config.audio.iter().flat_map(audio));
        specs
    }

    pub fn parameters(&self) -> u64 {
        self.specs().iter().map(|spec| spec.values() as u64).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.parameters() * self.dtype.bytes() as u64
    }

    fn layer_scale(&self, layer: usize) -> f32 {
        if layer < self.draft_layers {
            1.0
        } else {
            self.scale as f32
        }
    }

    pub fn embedding(&self) -> Spec {
        self.by_token("model.embed_tokens.weight")
    }

    /// The output matrix, unless it is the embedding.
    pub fn head(&self) -> Option<Spec> {
        (self.config.tied != Some(true)).then(|| self.by_token("lm_head.weight"))
    }

    fn by_token(&self, name: &str) -> Spec {
        let text = &self.config.text;
        let shape = [text.vocab_size, text.hidden_size];
        Spec {
            by_token: true,
            ..Spec::new(name.into(), &shape, Fill::Random(EMBEDDING))
        }
    }

    /// The last norm. Its weight sets how far logits spread: `sqrt(2 ln V)` is where the largest of V normal ones
    /// begins to stand out (Derrida's random energy model), so that sampling neither freezes nor drowns.
    pub fn norm(&self) -> Spec {
        let text = &self.config.text;
        let spread = (2.0 * (text.vocab_size as f64).ln()).sqrt();
        let weight = spread / (f64::from(EMBEDDING) * (text.hidden_size as f64).sqrt());
        Spec::new(
            "model.norm.weight".into(),
            &[text.hidden_size],
            Fill::Constant(weight as f32),
        )
    }

    /// One language layer whose additions to the residual stream are about `scale` large.
    pub fn layer(&self, layer: usize, scale: f32) -> Vec<Spec> {
        let TextConfig {
            hidden_size: hidden,
            intermediate_size: mlp,
            heads,
            kv_heads,
            head_dim: dim,
            ..
        } = self.config.text;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        // Queries and keys of about sqrt(2) give attention logits a spread of 2: sharp enough that what a token reads
        // depends on the whole text, so that answers do not run in circles.
        let sharp = std::f32::consts::SQRT_2;
        let mut specs = Vec::new();
        for (part, out, size) in [
            ("q", heads * dim, sharp),
            ("k", kv_heads * dim, sharp),
            ("v", kv_heads * dim, 1.0),
        ] {
            specs.push(matrix(
                name(&format!("self_attn.{part}_proj.weight")),
                out,
                hidden,
                size,
            ));
            specs.push(bias(name(&format!("self_attn.{part}_proj.bias")), out));
        }
        specs.push(matrix(
            name("self_attn.o_proj.weight"),
            hidden,
            heads * dim,
            scale,
        ));
        specs.push(matrix(name("mlp.gate_proj.weight"), mlp, hidden, 1.0));
        specs.push(matrix(name("mlp.up_proj.weight"), mlp, hidden, 1.0));
        specs.push(matrix(
            name("mlp.down_proj.weight"),
            hidden,
            mlp,
            scale / GATED,
        ));
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            specs.push(ones(name(&format!("{norm}.weight")), hidden));
        }
        specs
    }

    /// The values `start..` of a tensor, as the file holds them.
    pub fn fill(&self, spec: &Spec, start: usize, values: &mut [f32]) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let part = values.len().div_ceil(threads).next_multiple_of(4).max(4096);
        std::thread::scope(|scope| {
            for (index, part_values) in values.chunks_mut(part).enumerate() {
                scope.spawn(move || self.fill_part(spec, start + index * part, part_values));
            }
        });
    }

    fn fill_part(&self, spec: &Spec, start: usize, values: &mut [f32]) {
        let std = match spec.fill {
            Fill::Constant(value) => {
                values.fill(self.dtype.round(value));
                return;
            }
            Fill::Random(std) => std,
        };
        let key = self.key(&spec.name);
        // Uniform on (-1, 1) has the standard deviation 1 / sqrt(3); 2^-31 brings an i32 there.
        let unit = std * 3f32.sqrt() / 2f32.powi(31);
        let mut words = [0; 4];
        let mut held = None;
        for (index, value) in (start as u64..).zip(values.iter_mut()) {
            let counter = index / 4;
            if held != Some(counter) {
                words = philox4x32_10([counter as u32, (counter >> 32) as u32, 0, 0], key);
                held = Some(counter);
            }
            let [a, b, c, d] = words;
            let word = match index % 4 {
                0 => a,
                1 => b,
                2 => c,
                _ => d,
            };
            *value = self.dtype.round(word as i32 as f32 * unit);
        }
        if spec.by_token {
            let width = spec.shape.last().copied().unwrap_or(1);
            for &row in self.silent_rows {
                let first = (row as usize * width).max(start);
                let end = ((row as usize + 1) * width).min(start + values.len());
                if let Some(row) =
                    values.get_mut(first.saturating_sub(start)..end.saturating_sub(start))
                {
                    row.fill(0.0);
                }
            }
        }
    }

    /// The generator's key for a tensor: its name (FNV-1a) stirred with the seed.
    fn key(&self, name: &str) -> [u32; 2] {
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        });
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        let ([a, b], [c, d]) = (halves(hash), halves(self.seed));
        let [first, second, _, _] = philox4x32_10([a, b, c, d], [0x7477_696E, 0]);
        [first, second]
    }
}

/// A matrix that turns inputs of size 1 into outputs of size `size`.
fn matrix(name: String, out: usize, inputs: usize, size: f32) -> Spec {
    Spec::new(
        name,
        &[out, inputs],
        Fill::Random(size / (inputs as f32).sqrt()),
    )
}

fn bias(name: String, out: usize) -> Spec {
    Spec::new(name, &[out], Fill::Random(0.1))
}

fn ones(name: String, width: usize) -> Spec {
    Spec::new(name, &[width], Fill::Constant(1.0))
}

fn zeros(name: String, width: usize) -> Spec {
    Spec::new(name, &[width], Fill::Constant(0.0))
}

fn linear(specs: &mut Vec<Spec>, name: &str, out: usize, inputs: usize, size: f32) {
    specs.push(matrix(format!("{name}.weight"), out, inputs, size));
    specs.push(bias(format!("{name}.bias"), out));
}

/// The vision tower in the thinker's layout. Its tokens are as large as the embedding's.
fn vision(config: &VisionConfig) -> Vec<Spec> {
    let width = config.hidden_size;
    let mut specs = Vec::new();
    let kernel = [
        width,
        config.channels,
        config.temporal_patch_size,
        config.patch_size,
        config.patch_size,
    ];
    let fan_in = config.patch_values() as f32;
    specs.push(Spec::new(
        "visual.patch_embed.proj.weight".into(),
        &kernel,
        Fill::Random(1.0 / fan_in.sqrt()),
    ));
    for block in 0..config.depth {
        let name = |part: &str| format!("visual.blocks.{block}.{part}");
        for part in ["attn.q", "attn.k", "attn.v", "attn.proj"] {
            linear(&mut specs, &name(part), width, width, 1.0);
        }
        let mlp = config.intermediate_size;
        linear(&mut specs, &name("mlp.gate_proj"), mlp, width, 1.0);
        linear(&mut specs, &name("mlp.up_proj"), mlp, width, 1.0);
        linear(&mut specs, &name("mlp.down_proj"), width, mlp, 1.0 / GATED);
        specs.push(ones(name("norm1.weight"), width));
        specs.push(ones(name("norm2.weight"), width));
    }
    let merged = width * config.merge_size * config.merge_size;
    specs.push(ones("visual.merger.ln_q.weight".into(), width));
    linear(&mut specs, "visual.merger.mlp.0", merged, merged, 1.0);
    specs.push(matrix(
        "visual.merger.mlp.2.weight".into(),
        config.out_hidden_size,
        merged,
        EMBEDDING,
    ));
    specs.push(zeros(
        "visual.merger.mlp.2.bias".into(),
        config.out_hidden_size,
    ));
    specs
}

/// The audio tower in the thinker's layout.
fn audio(config: &AudioConfig) -> Vec<Spec> {
    let width = config.hidden_size;
    let mut specs = Vec::new();
    for (name, inputs) in [("conv1", config.mel_bins), ("conv2", width)] {
        let std = 1.0 / (3.0 * inputs as f32).sqrt();
        specs.push(Spec::new(
            format!("audio_tower.{name}.weight"),
            &[width, inputs, 3],
            Fill::Random(std),
        ));
        specs.push(bias(format!("audio_tower.{name}.bias"), width));
    }
    for layer in 0..config.layers {
        let name = |part: &str| format!("audio_tower.layers.{layer}.{part}");
        for part in ["q", "v", "out"] {
            linear(
                &mut specs,
                &name(&format!("self_attn.{part}_proj")),
                width,
                width,
                1.0,
            );
        }
        specs.push(matrix(name("self_attn.k_proj.weight"), width, width, 1.0));
        linear(
            &mut specs,
            &name("fc1"),
            config.intermediate_size,
            width,
            1.0,
        );
        linear(
            &mut specs,
            &name("fc2"),
            width,
            config.intermediate_size,
            1.0,
        );
        for norm in ["self_attn_layer_norm", "final_layer_norm"] {
            specs.push(ones(name(&format!("{norm}.weight")), width));
            specs.push(zeros(name(&format!("{norm}.bias")), width));
        }
    }
    specs.push(ones("audio_tower.ln_post.weight".into(), width));
    specs.push(zeros("audio_tower.ln_post.bias".into(), width));
    specs.push(matrix(
        "audio_tower.proj.weight".into(),
        config.output_size,
        width,
        EMBEDDING,
    ));
    specs.push(zeros("audio_tower.proj.bias".into(), config.output_size));
    // Read by transformers alone.
    specs.push(Spec::new(
        "audio_tower.audio_bos_eos_token.weight".into(),
        &[2, config.output_size],
        Fill::Random(EMBEDDING),
    ));
    specs
}

/// Writes the safetensors file, holding [`BLOCK`] values at a time.
pub(super) fn write(path: &Path, plan: &Plan) -> Result<()> {
    let specs = plan.specs();
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0;
    for spec in &specs {
        let start = end;
        end += spec.values() * plan.dtype.bytes();
        let dtype = match plan.dtype {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
        };
        let entry = json!({ "dtype": dtype, "shape": spec.shape, "data_offsets": [start, end] });
        header.insert(spec.name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // The data begin at a multiple of 8.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut values = Vec::new();
        let mut bytes = Vec::new();
        for spec in &specs {
            let mut start = 0;
            while start < spec.values() {
                values.resize(BLOCK.min(spec.values() - start), 0.0);
                plan.fill(spec, start, &mut values);
                bytes.clear();
                match plan.dtype {
                    Dtype::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
                    Dtype::Bf16 => bytes.extend(
                        values
                            .iter()
                            .flat_map(|&value| bf16_bits(value).to_le_bytes()),
                    ),
                }
                file.write_all(&bytes)?;
                start += values.len();
            }
        }
        file.flush()
    };
    write().map_err(|e| cannot_write(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_and_ties_to_even() {
        for (value, bits) in [
            (1.0f32, 0x3F80),
            (-2.5, 0xC020),
            (f32::from_bits(0x3F80_8000), 0x3F80),
            (f32::from_bits(0x3F81_8000), 0x3F82),
            (f32::from_bits(0x3F80_8001), 0x3F81),
            (0.0, 0),
        ] {
            assert_eq!(bf16_bits(value), bits, "{value}");
        }
    }
}
