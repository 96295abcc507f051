"""Files that are kept packed by zstd, as FILE.zst."""

from __future__ import annotations

import json
from pathlib import Path

import zstandard


def write(path: Path, value: object) -> None:
    """Writes `path` as JSON, with .zst behind its name."""
    write_bytes(path, (json.dumps(value, separators=(",", ":")) + "\n").encode())


def write_bytes(path: Path, plain: bytes) -> None:
    """Writes `path` with .zst behind its name."""
    _packed(path).write_bytes(zstandard.ZstdCompressor(level=19).compress(plain))
    path.unlink(missing_ok=True)  # or an older one would be read in its place


def read(path: Path) -> object:
    """Reads `path` itself if it is there, else what is packed."""
    return json.loads(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Reads `path` itself if it is there, else what is packed."""
    return path.read_bytes() if path.exists() else zstandard.decompress(_packed(path).read_bytes())


def _packed(path: Path) -> Path:
    return path.with_name(path.name + ".zst")
