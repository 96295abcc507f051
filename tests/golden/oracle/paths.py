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
    """Write `value` as `json_text` has it."""
    write_text(path, json_text(value))


def write_packed_json(path, value):
    """The same, packed, with .zst behind the name."""
    _write_packed(path, json_text(value).encode())


def json_text(value):
    """`value` with sorted-as-given keys and a final newline, so that a rerun gives the same bytes."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Lists of numbers on one line.
    text = re.sub(r"\[\s+(-?[\d.eE+-]+(?:,\s+-?[\d.eE+-]+)*)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    return text + "\n"


def write_text(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()  # or the file of another folder would be written
    path.write_text(text, encoding="utf-8")


def link_equal_files(folders):
    """Keeps one of the files of equal name and content in the folders of `folders`; the others become links to it."""
    first = {}
    for path in sorted(folders.glob("*/*")):
        if path.is_symlink():
            continue
        kept = first.setdefault((path.name, path.read_bytes()), path)
        if kept is not path:
            path.unlink()
            path.symlink_to(Path("..", kept.parent.name, kept.name))


def write_tensors(path, tensors):
    """Write a dict of tensors or arrays, packed, with .zst behind the name; keys are sorted by safetensors itself."""
    _write_packed(path, save({k: torch.as_tensor(v).contiguous() for k, v in tensors.items()}))


def _write_packed(path, plain):
    path = packed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(plain))


def packed(path):
    """Where what is kept packed of `path` lies."""
    return Path(f"{path}.zst")
