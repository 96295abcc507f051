"""A tiny byte-level BPE tokenizer shaped like Qwen's: 256 bytes, a few merges, the special tokens."""

from collections import Counter

from .paths import write_json

# The pre-tokenizer expression of the Qwen2 tokenizer.
PRETOKENIZE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = 40
CORPUS = (
    "system user assistant You are a helpful assistant . What is in the picture ? Describe the image and the sound . "
    "The video shows a red disc that moves over the field . How many frames are there in this video ? Answer in one "
    "word . Compare the two images , then say what you hear in the audio . Is there anything else ? Yes , the tone "
    "rises and the noise fades ."
)
_COMMON = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_BOXES = [
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
]
VL_SPECIALS = _COMMON + _BOXES + [
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]
OMNI_SPECIALS = _COMMON + [
    "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
    "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>",
]
# In Qwen's files these are added tokens but not special ones: they survive skip_special_tokens.
PLAIN_ADDED = ["<tool_call>", "</tool_call>"]


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def learn_merges():
    """Plain BPE on CORPUS; ties go to the lexically smaller pair, so that the result never changes."""
    alphabet = byte_alphabet()
    words = Counter()
    for i, word in enumerate(CORPUS.split()):
        text = word if i == 0 else " " + word
        words[tuple(alphabet[b] for b in text.encode())] += 1
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for symbols, n in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        merged = Counter()
        for symbols, n in words.items():
            out, i = [], 0
            while i < len(symbols):
                if symbols[i : i + 2] == best:
                    out.append(symbols[i] + symbols[i + 1])
                    i += 2
                else:
                    out.append(symbols[i])
                    i += 1
            merged[tuple(out)] += n
        words = merged
    return merges


def vocabulary():
    """(token -> id without the added tokens, merges)."""
    merges = learn_merges()
    tokens = list(byte_alphabet().values()) + [a + b for a, b in merges]
    return {t: i for i, t in enumerate(tokens)}, merges


def special_ids(family):
    """Added token -> id; they follow the BPE vocabulary without a hole."""
    start = 256 + MERGES
    names = (OMNI_SPECIALS if family == "qwen2_5_omni" else VL_SPECIALS) + PLAIN_ADDED
    return {name: start + i for i, name in enumerate(names)}


def write(folder, family, chat_template=None):
    """Write tokenizer.json and tokenizer_config.json as the published checkpoints have them."""
    vocab, merges = vocabulary()
    added = special_ids(family)

    def entry(name):
        return {
            "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": name not in PLAIN_ADDED,
        }

    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, **entry(name)} for name, i in added.items()],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": PRETOKENIZE}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
                ],
            },
            "post_processor": {
                "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False,
            },
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges],
            },
        },
    )
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): entry(name) for name, i in added.items()},
        "additional_special_tokens": [n for n in added if n not in PLAIN_ADDED and n != "<|endoftext|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    if family == "qwen2_5_omni":
        extra = {
            "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
            "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
            "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
        }
        config["extra_special_tokens"] = extra
        config.update(extra)
    if chat_template is not None:
        config["chat_template"] = chat_template
    write_json(folder / "tokenizer_config.json", config)
