"""Folders of the golden tree and small JSON/safetensors writers."""

import json
import re
from pathlib import Path

import torch
import zstandard
from safetensors.torch import save

ROOT = Path(__file__).resolve().parent.parent
MEDIA = ROOT / "media"
MODELS = ROOT / "models"
CASES = ROOT / "cases"
PRUNED = ROOT / "pruned"
PREPROCESS = ROOT / "preprocess"
DECODERS = ROOT / "decoders"


def write_json(path, value):
    """Write `value` with sorted-as-given keys and a final newline, so that a rerun gives the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Lists of numbers on one line.
    text = re.sub(r"\[\s+(-?[\d.eE+-]+(?:,\s+-?[\d.eE+-]+)*)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


def write_text(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_tensors(path, tensors):
    """Write a dict of tensors or arrays, packed, with .zst behind the name; keys are sorted by safetensors itself."""
    path = packed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = save({k: torch.as_tensor(v).contiguous() for k, v in tensors.items()})
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(plain))


def packed(path):
    """Where the tensors of `path` lie."""
    return Path(f"{path}.zst")
