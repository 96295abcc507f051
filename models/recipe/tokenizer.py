"""Trains the shared byte-level BPE tokenizer and writes all processor files of a model directory.

The tokenizer is in the style of Qwen2: NFC, the Qwen2 split pattern, 256 byte tokens so that any UTF-8 encodes, merges
learned from this world's own text, then the special tokens of Qwen2.5-Omni. Run it alone to write a directory:

    python tokenizer.py OUT_DIR
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import world

VOCAB_TARGET = 600  # bytes and merges; the special tokens come after
MODEL_VOCAB = 640  # rows of the embedding: a few more than the tokenizer has ids, as in the published families
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|vision_bos|>",
    "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>",
]
EXTRA = {
    "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
    "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
}
SYSTEM = "You are a helpful assistant."

# Our own words for the shape that Qwen2.5-Omni prompts have: turns between <|im_start|> and <|im_end|>, media in place.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' or part['type'] == 'image_url' -%}
{{- '<|vision_bos|><|IMAGE|><|vision_eos|>' -}}
{%- elif part['type'] == 'video' or part['type'] == 'video_url' -%}
{{- '<|vision_bos|><|VIDEO|><|vision_eos|>' -}}
{%- elif part['type'] == 'audio' or part['type'] == 'input_audio' or part['type'] == 'audio_url' -%}
{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""

GENERAL = """
the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when we
there can an your which their said if do will each about how up out them then she many some so these would other into has more
her two like him see time could no make than first been its who now people my made over did down only way find use may water
long little very after words called just where most know please answer question option options hint select correct above letter
""".split()


def corpus(seed: int = 11, scenes: int = 1500):
    """Text of the world, with its own frequencies, plus a few common English words."""
    rng = random.Random(seed)
    for i in range(scenes):
        scene = world.make_scene(10_000_000 + i, ("image", "video", "audio"))
        found = world.questions(scene, rng) + world.text_questions(rng) + world.long_questions(scene, rng)
        for q in found:
            yield q.text
            yield q.answer
            if q.choices and rng.random() < 0.2:
                yield world.multiple_choice(q, rng)[0]
        yield f"user\nassistant\nsystem\n{SYSTEM}"
    for c in list(world.COLORS) + world.SHAPES + list(world.PITCHES) + world.ZONES + list(world.DIRECTIONS):
        for _ in range(300):
            yield c
            yield " " + c
    for _ in range(40):
        yield " ".join(GENERAL)


def build() -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_TARGET, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tok


def write(directory: Path, tok: Tokenizer | None = None) -> Tokenizer:
    """Writes tokenizer, chat template and processor settings into a model directory."""
    directory.mkdir(parents=True, exist_ok=True)
    tok = tok or build()
    tok.save(str(directory / "tokenizer.json"))

    def dump(name: str, value: dict) -> None:
        (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    added = {
        str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for t in SPECIAL
    }
    dump(
        "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": [t for t in SPECIAL if t not in ("<|endoftext|>",)],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "extra_special_tokens": EXTRA,
            "model_max_length": 4096,
            "pad_token": "<|endoftext|>",
            "processor_class": "Qwen2_5OmniProcessor",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
            **EXTRA,
        },
    )
    vocab = json.loads(tok.to_str())["model"]
    dump("vocab.json", vocab["vocab"])
    merges = [" ".join(m) if isinstance(m, list) else m for m in vocab["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    vision = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": mean,
        "image_std": std, "merge_size": 2, "min_pixels": 3136, "max_pixels": 401408, "patch_size": 14, "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 3136, "longest_edge": 401408},
        "temporal_patch_size": 2, "processor_class": "Qwen2_5OmniProcessor",
    }
    dump(
        "preprocessor_config.json",
        {
            **vision,
            "image_processor_type": "Qwen2VLImageProcessor",
            "feature_extractor_type": "WhisperFeatureExtractor",
            "chunk_length": 30, "dither": 0.0, "feature_size": 128, "hop_length": 160, "n_fft": 400, "n_samples": 480000,
            "nb_max_frames": 3000, "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True,
            "sampling_rate": 16000,
        },
    )
    dump(
        "video_preprocessor_config.json",
        {
            **vision, "video_processor_type": "Qwen2VLVideoProcessor", "do_sample_frames": True, "fps": 2.0,
            "min_frames": 4, "max_frames": 64,
        },
    )
    dump(
        "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": [tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")],
            "pad_token_id": tok.token_to_id("<|endoftext|>"),
            "max_new_tokens": 128,
        },
    )
    return tok


if __name__ == "__main__":
    built = write(Path(sys.argv[1]))
    print(built.get_vocab_size(), "ids")
