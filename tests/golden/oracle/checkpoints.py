"""The tiny checkpoints: configurations, seeded weights, and the file layouts they are stored in.

Each `Spec` is one checkpoint. Its configuration is written in one of the layouts that exist in the wild
(`nested`: what transformers 5 saves; `flat`: what the published Qwen2-VL and Qwen2.5-VL files have; `thinker` and
`whole`: a Qwen2.5-Omni thinker alone and a complete Omni checkpoint), its tensors under published or native names.
"""

import copy
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers as tf
from safetensors.torch import save_file

from . import templates, tokenizer
from .paths import MODELS, write_json, write_text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass
class Spec:
    """One checkpoint. `text`, `vision`, `audio` hold the sub-configurations, `extra` further root keys."""

    name: str
    family: str  # qwen2_vl | qwen2_5_vl | qwen2_5_omni
    config: str  # nested | flat | thinker | whole
    names: str  # published | native
    dtype: str
    text: dict
    vision: dict
    audio: dict | None = None
    tied: bool = False
    extra: dict = field(default_factory=dict)
    shards: int = 1
    template_in: str = "jinja"  # jinja | json | tokenizer
    processor: str = "published"  # published | split | combined
    image_pixels: tuple = (1568, 12544)
    video_pixels: tuple = (1568, 6272)
    chunk_length: int = 30
    attention: str = "eager"
    seed: int = 0
    # Weight scales: layers' linear maps, the way out of each residual branch, and the logits.
    gain: float = 1.0
    out_gain: float = 1.5
    logit_gain: float = 2.5

    @property
    def folder(self):
        return MODELS / self.name


def _rope_flat(sections):
    return {"rope_scaling": {"type": "mrope", "mrope_section": sections}, "rope_theta": 1000000.0}


def _rope_nested(sections, theta=1000000.0):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, "mrope_section": sections}}


def _text(hidden, inter, layers, heads, kv, rope, vocab=320, eps=1e-6, **more):
    return {
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inter, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "hidden_act": "silu", "rms_norm_eps": eps,
        "max_position_embeddings": 4096, "attention_dropout": 0.0, **rope, **more,
    }


def _vision2(embed, hidden, depth, heads, ratio, patch=14):
    return {
        "depth": depth, "embed_dim": embed, "hidden_size": hidden, "hidden_act": "quick_gelu", "mlp_ratio": ratio,
        "num_heads": heads, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }


def _vision25(hidden, out, inter, depth, heads, window, full, patch=14, tps=4):
    v = {
        "depth": depth, "hidden_size": hidden, "intermediate_size": inter, "hidden_act": "silu", "num_heads": heads,
        "out_hidden_size": out, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "window_size": window, "fullatt_block_indexes": full,
    }
    if tps is not None:
        v["tokens_per_second"] = tps
    return v


def _audio(d, out, layers, heads, ffn, window, positions=1500):
    return {
        "d_model": d, "output_dim": out, "encoder_layers": layers, "encoder_attention_heads": heads,
        "encoder_ffn_dim": ffn, "n_window": window, "num_mel_bins": 128, "max_source_positions": positions,
        "activation_function": "gelu", "scale_embedding": False,
    }


SPECS = [
    Spec(
        "qwen2-vl-gqa", "qwen2_vl", "nested", "native", "float16",
        _text(32, 56, 2, 4, 2, _rope_nested([2, 1, 1])),
        _vision2(16, 32, 2, 2, 2),
        processor="split",
    ),
    Spec(
        "qwen2-vl-tied-odd", "qwen2_vl", "nested", "published", "bfloat16",
        _text(36, 29, 3, 3, 1, _rope_nested([2, 1, 3], 10000.0), vocab=331, eps=1e-5),
        _vision2(24, 36, 3, 3, 3, patch=10),
        tied=True, template_in="json", image_pixels=(800, 8000), video_pixels=(800, 4000),
    ),
    Spec(
        "qwen2-vl-flat", "qwen2_vl", "flat", "published", "float16",
        _text(48, 64, 2, 4, 4, _rope_flat([2, 2, 2]), use_sliding_window=False, sliding_window=32768,
              max_window_layers=2),
        _vision2(16, 48, 2, 2, 4, patch=14),
        template_in="tokenizer", attention="sdpa",
    ),
    Spec(
        "qwen2-vl-sliding", "qwen2_vl", "nested", "published", "bfloat16",
        _text(24, 40, 3, 3, 3, _rope_nested([1, 1, 2]), use_sliding_window=True, sliding_window=9,
              layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
        _vision2(16, 24, 2, 2, 2, patch=8),
        image_pixels=(512, 4096), video_pixels=(512, 2048),
    ),
    Spec(
        "qwen25-vl-windows", "qwen2_5_vl", "nested", "native", "float32",
        _text(32, 56, 2, 4, 2, _rope_nested([1, 1, 2])),
        _vision25(16, 32, 28, 4, 2, 32, [1, 3], patch=8, tps=11),
        processor="combined", image_pixels=(512, 10240), video_pixels=(512, 2560),
    ),
    Spec(
        "qwen25-vl-flat-tied", "qwen2_5_vl", "flat", "published", "bfloat16",
        _text(48, 72, 3, 6, 2, _rope_flat([1, 1, 2]), use_sliding_window=False, sliding_window=32768,
              max_window_layers=3),
        _vision25(16, 48, 50, 3, 2, 112, [2]),
        tied=True, template_in="json", attention="sdpa",
    ),
    Spec(
        "qwen25-vl-sharded", "qwen2_5_vl", "nested", "native", "float16",
        _text(40, 37, 2, 5, 1, _rope_nested([2, 1, 1]), vocab=325),
        _vision25(24, 40, 33, 2, 3, 32, [0], patch=8, tps=2),
        shards=3, template_in="tokenizer", processor="split",
        image_pixels=(512, 10240), video_pixels=(512, 2560),
    ),
    Spec(
        "qwen25-vl-sliding", "qwen2_5_vl", "flat", "published", "float16",
        _text(32, 48, 3, 2, 1, _rope_flat([2, 3, 3]), use_sliding_window=True, sliding_window=12,
              max_window_layers=1),
        _vision25(16, 32, 24, 2, 2, 32, [], patch=8),
        image_pixels=(512, 4096), video_pixels=(512, 2048),
    ),
    Spec(
        "omni-thinker", "qwen2_5_omni", "thinker", "native", "float32",
        _text(32, 56, 2, 4, 2, _rope_nested([1, 1, 2])),
        _vision25(16, 32, 28, 3, 2, 40, [1], patch=10, tps=None),
        _audio(16, 32, 2, 2, 40, 100),
        processor="combined", image_pixels=(800, 9600), video_pixels=(800, 3200),
    ),
    Spec(
        "omni-whole", "qwen2_5_omni", "whole", "published", "bfloat16",
        _text(40, 48, 2, 5, 1, {"rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
                                "rope_theta": 1000000.0},
              use_sliding_window=False, sliding_window=32768, max_window_layers=2),
        _vision25(16, 40, 36, 2, 2, 112, [1], tps=25),
        _audio(24, 40, 2, 3, 48, 8),
        shards=2, template_in="json", chunk_length=300, attention="sdpa",
    ),
    Spec(
        "omni-chunks-tied", "qwen2_5_omni", "thinker", "native", "float16",
        _text(36, 45, 2, 3, 3, _rope_nested([1, 2, 3]), vocab=333),
        _vision25(16, 36, 20, 2, 2, 32, [0], patch=8, tps=None),
        _audio(20, 36, 3, 2, 28, 5, positions=300),
        tied=True, template_in="tokenizer", processor="split",
        image_pixels=(512, 4096), video_pixels=(512, 2048),
    ),
    Spec(
        "qwen2-vl-deep", "qwen2_vl", "nested", "native", "float16",
        _text(16, 8, 16, 2, 1, _rope_nested([1, 1, 2])),
        _vision2(8, 16, 1, 2, 2, patch=4),
        tied=True, processor="split", image_pixels=(256, 2048), video_pixels=(256, 1024),
    ),
]
BY_NAME = {s.name: s for s in SPECS}


def build_config(spec):
    """The contents of config.json in this checkpoint's layout."""
    ids = tokenizer.special_ids(spec.family)
    text, vision = copy.deepcopy(spec.text), copy.deepcopy(spec.vision)
    if spec.family == "qwen2_5_omni":
        text["model_type"] = "qwen2_5_omni_text"
        text["tie_word_embeddings"] = spec.tied
        vision["model_type"] = "qwen2_5_omni_vision_encoder"
        thinker = {
            "architectures": ["Qwen2_5OmniThinkerForConditionalGeneration"],
            "model_type": "qwen2_5_omni_thinker",
            "audio_config": {"model_type": "qwen2_5_omni_audio_encoder", **spec.audio},
            "text_config": text,
            "vision_config": vision,
            "audio_token_index": ids["<|AUDIO|>"],
            "image_token_index": ids["<|IMAGE|>"],
            "video_token_index": ids["<|VIDEO|>"],
            "audio_start_token_id": ids["<|audio_bos|>"],
            "audio_end_token_id": ids["<|audio_eos|>"],
            "vision_start_token_id": ids["<|vision_bos|>"],
            "vision_end_token_id": ids["<|vision_eos|>"],
            "vision_token_id": ids["<|vision_pad|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "user_token_id": 77,
            "ignore_index": -100,
            "position_id_per_seconds": 25,
            "seconds_per_chunk": 2,
            "init_std": 0.02,
            "tie_word_embeddings": spec.tied,
        }
        if spec.config == "thinker":
            return {**thinker, "dtype": spec.dtype, "transformers_version": tf.__version__, **spec.extra}
        vision.update(embed_dim=vision["hidden_size"], in_channels=3, in_chans=3, init_std=0.02, mlp_ratio=4,
                      spatial_patch_size=vision["patch_size"])
        return {
            "architectures": ["Qwen2_5OmniModel"],
            "enable_audio_output": True,
            "enable_talker": True,
            "model_type": "qwen2_5_omni",
            "thinker_config": thinker,
            "talker_config": {
                "architectures": ["Qwen2OmniTalkerForConditionalGeneration"], "model_type": "qwen2_5_omni_talker",
                "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                "head_dim": 8, "intermediate_size": 16, "embedding_size": 40, "vocab_size": 32,
                "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            },
            "token2wav_config": {"model_type": "qwen2_5_omni_token2wav"},
            "torch_dtype": spec.dtype,
            "transformers_version": "4.50.0.dev0",
            **spec.extra,
        }
    root = {
        "architectures": [
            "Qwen2VLForConditionalGeneration" if spec.family == "qwen2_vl" else "Qwen2_5_VLForConditionalGeneration"
        ],
        "model_type": spec.family,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": spec.tied,
    }
    token_ids = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    if spec.config == "nested":
        text.update(token_ids, pad_token_id=None, model_type=f"{spec.family}_text")
        vision.update(in_channels=3, model_type=f"{spec.family}_vision",
                      rope_parameters={"rope_theta": 10000.0, "rope_type": "axial"})
        return {**root, "dtype": spec.dtype, "text_config": text, "vision_config": vision,
                "transformers_version": tf.__version__, **spec.extra}
    vision.update(in_chans=3, spatial_patch_size=vision["patch_size"])
    if spec.family == "qwen2_vl":
        del vision["hidden_act"]  # the published Qwen2-VL files leave it to the default, quick_gelu
    return {**root, **text, **token_ids, "vision_token_id": ids["<|vision_pad|>"], "initializer_range": 0.02,
            "use_cache": True, "vision_config": vision, "torch_dtype": spec.dtype,
            "transformers_version": "4.41.2", **spec.extra}


def model_class(spec):
    return {
        "qwen2_vl": tf.Qwen2VLForConditionalGeneration,
        "qwen2_5_vl": tf.Qwen2_5_VLForConditionalGeneration,
        "qwen2_5_omni": tf.Qwen2_5OmniThinkerForConditionalGeneration,
    }[spec.family]


def read_config(spec):
    """The configuration object transformers makes of the folder's config.json (of a whole Omni, its thinker's)."""
    config = tf.AutoConfig.from_pretrained(spec.folder)
    return config.thinker_config if spec.config == "whole" else config


def random_weights(spec, shapes, seed):
    """Seeded weights whose greedy output varies: native name -> tensor in the storage dtype.

    Matrices are normal with std gain/sqrt(fan_in), biases and norms are far from 0 and 1 so that a missing one shows,
    and the final norm has random signs, which keeps a tied model from repeating its input.
    """
    gen = torch.Generator().manual_seed(seed)
    out = {}
    for name in sorted(shapes):
        shape = shapes[name]
        x = torch.randn(shape, generator=gen)
        leaf = name.rsplit(".", 1)[-1]
        is_norm = any(k in name for k in ("norm", "ln_q", "ln_post"))
        if name.endswith(("language_model.norm.weight", "model.norm.weight")):
            x = x.sign() * (1 + 0.2 * x.abs())
        elif is_norm:
            x = 0.2 * x if leaf == "bias" else 1 + 0.2 * x
        elif leaf == "bias":
            x = 0.3 * x
        elif "embed_tokens" in name:
            x = x * (spec.logit_gain / shape[1] ** 0.5 if spec.tied else 1.0)
        elif name == "lm_head.weight":
            x = x * spec.logit_gain / shape[1] ** 0.5
        elif "audio_bos_eos" in name:
            pass
        else:
            fan_in = x[0].numel()
            gain = spec.gain
            if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "fc2.weight", "attn.proj.weight")):
                gain = spec.out_gain
            elif name.endswith(("q_proj.weight", "k_proj.weight", "qkv.weight", "attn.q.weight", "attn.k.weight")):
                gain = 1.3
            x = x * gain / fan_in**0.5
        out[name] = x.to(DTYPES[spec.dtype])
    if spec.tied:
        out.pop("lm_head.weight", None)
    return out


def stored_name(spec, name):
    """A module's own tensor name -> its name in the file."""
    if spec.family == "qwen2_5_omni":
        return f"thinker.{name}" if spec.config == "whole" else name
    if spec.names == "published":
        return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
    return name


def write_weights(spec, weights):
    """Write one model.safetensors, or shards with their index."""
    for old in spec.folder.glob("*.safetensors*"):
        old.unlink()
    stored = {stored_name(spec, n): t.contiguous() for n, t in weights.items()}
    if spec.config == "whole":  # parts of a complete Omni checkpoint that a thinker must skip
        gen = torch.Generator().manual_seed(1)
        for name, shape in {
            "talker.thinker_to_talker_proj.weight": (16, 40),
            "talker.model.layers.0.mlp.up_proj.weight": (16, 16),
            "talker.codec_head.weight": (32, 16),
            "token2wav.code2wav_dit_model.proj_out.weight": (8, 16),
        }.items():
            stored[name] = torch.randn(shape, generator=gen).to(DTYPES[spec.dtype])
    if spec.shards == 1:
        _save(stored, spec.folder / "model.safetensors")
        return
    names = sorted(stored)
    total = sum(t.numel() * t.element_size() for t in stored.values())
    groups, size = [[]], 0
    for n in names:
        if size > total / spec.shards * len(groups) and len(groups) < spec.shards:
            groups.append([])
        groups[-1].append(n)
        size += stored[n].numel() * stored[n].element_size()
    weight_map = {}
    for i, group in enumerate(groups, start=1):
        file = f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        _save({n: stored[n] for n in group}, spec.folder / file)
        weight_map.update({n: file for n in group})
    write_json(spec.folder / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def processor_class(spec):
    return {
        "qwen2_vl": tf.Qwen2VLProcessor, "qwen2_5_vl": tf.Qwen2_5_VLProcessor, "qwen2_5_omni": tf.Qwen2_5OmniProcessor,
    }[spec.family]


def write_processor(spec):
    """preprocessor_config.json and its relatives, in the style the checkpoint asks for.

    published: one preprocessor_config.json with min_pixels and max_pixels, as on the model pages.
    split:     preprocessor_config.json and video_preprocessor_config.json with `size`.
    combined:  the processor_config.json that transformers 5 saves, and nothing else.
    """
    lo, hi = spec.image_pixels
    common = {
        "patch_size": spec.vision["patch_size"], "temporal_patch_size": spec.vision["temporal_patch_size"],
        "merge_size": spec.vision["spatial_merge_size"], "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    }
    mel = {}
    if spec.family == "qwen2_5_omni":
        mel = {
            "chunk_length": spec.chunk_length, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": 128, "hop_length": 160, "n_fft": 400, "n_samples": spec.chunk_length * 16000,
            "nb_max_frames": spec.chunk_length * 100, "padding_side": "right", "padding_value": 0.0,
            "return_attention_mask": True, "sampling_rate": 16000,
        }
    name = processor_class(spec).__name__
    if spec.processor == "published":
        write_json(spec.folder / "preprocessor_config.json",
                   {"min_pixels": lo, "max_pixels": hi, **common, **mel,
                    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": name})
        return
    vlo, vhi = spec.video_pixels
    image_size, video_size = {"shortest_edge": lo, "longest_edge": hi}, {"shortest_edge": vlo, "longest_edge": vhi}
    if spec.processor == "split":
        steps = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3,
                 "rescale_factor": 0.00392156862745098}
        write_json(spec.folder / "preprocessor_config.json",
                   {**steps, **common, "size": image_size, **mel, "image_processor_type": "Qwen2VLImageProcessor",
                    "processor_class": name})
        write_json(spec.folder / "video_preprocessor_config.json",
                   {**steps, **common, "size": video_size, "do_sample_frames": False, "min_frames": 4,
                    "max_frames": 768, "video_processor_type": "Qwen2VLVideoProcessor", "processor_class": name})
        return
    parts = {
        "image_processor": tf.Qwen2VLImageProcessor(size=image_size, **common),
        "video_processor": tf.Qwen2VLVideoProcessor(size=video_size, **common),
        "tokenizer": tf.AutoTokenizer.from_pretrained(spec.folder),
    }
    if mel:
        parts["feature_extractor"] = tf.WhisperFeatureExtractor(
            feature_size=128, chunk_length=spec.chunk_length, return_attention_mask=True)
    with tempfile.TemporaryDirectory() as tmp:
        processor_class(spec)(**parts).save_pretrained(tmp)
        saved = json.loads(Path(tmp, "processor_config.json").read_text(encoding="utf-8"))
    write_json(spec.folder / "processor_config.json", saved)


def _save(tensors, path):
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)


def write_static(spec):
    """Everything but the weights."""
    if spec.folder.exists():
        shutil.rmtree(spec.folder)
    spec.folder.mkdir(parents=True)
    ids = tokenizer.special_ids(spec.family)
    template = templates.for_family(spec.family)
    tokenizer.write(spec.folder, spec.family, template if spec.template_in == "tokenizer" else None)
    if spec.template_in == "jinja":
        write_text(spec.folder / "chat_template.jinja", template)
    elif spec.template_in == "json":
        write_json(spec.folder / "chat_template.json", {"chat_template": template})
    write_json(spec.folder / "config.json", build_config(spec))
    generation = {
        "bos_token_id": ids["<|endoftext|>"],
        "do_sample": True,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
        "repetition_penalty": 1.05,
        "temperature": 0.1 if spec.family == "qwen2_5_vl" else 0.7,
        "top_k": 1 if spec.family == "qwen2_vl" else 20,
        "top_p": 0.8,
        "transformers_version": tf.__version__,
    }
    if spec.family == "qwen2_5_omni":  # the published Omni file sets no sampling defaults and no list
        generation = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
                      "transformers_version": "4.50.0.dev0"}
    write_json(spec.folder / "generation_config.json", generation)
    write_processor(spec)


def native_shapes(spec):
    """Name -> shape of the tensors the family's module has under this configuration."""
    with torch.device("meta"):
        model = model_class(spec)(read_config(spec))
    return {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}


def load(spec):
    """Load the folder as transformers does, upcast to f32, and insist that every tensor was found and equal."""
    model, info = model_class(spec).from_pretrained(
        spec.folder, config=read_config(spec), dtype=torch.float32, attn_implementation=spec.attention,
        output_loading_info=True,
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], (spec.name, info)
    skipped = {n for n in info["unexpected_keys"] if not n.startswith(("talker.", "token2wav."))}
    assert not skipped, (spec.name, skipped)
    # Greedy decoding without the checkpoint's sampling defaults and without a stop token.
    model.generation_config = tf.GenerationConfig(eos_token_id=None, pad_token_id=0)
    return model.eval()


def write(spec, seed):
    """Write weights drawn from `seed` and return the loaded model."""
    weights = random_weights(spec, native_shapes(spec), seed)
    write_weights(spec, weights)
    model = load(spec)
    loaded = dict(model.named_parameters(remove_duplicate=False))
    for name, t in weights.items():
        assert torch.equal(loaded[name], t.float()), (spec.name, name)
    return model
