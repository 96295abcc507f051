"""Shipments by the description of their bytes (`src/ship.rs`), with Pillow's JPEG and libsndfile's FLAC.

    pip install numpy pillow soundfile
    python make_shipments.py          # writes beside itself; the tests need no Python

What is in them is said again in `tests/it/ship_bytes.rs`.
"""

import io
import struct
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

HERE = Path(__file__).parent
MAGIC = bytes.fromhex("d34d534849500d0a")


def jpeg(width, height, left, right):
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = left, right
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def flac(samples):
    out = io.BytesIO()
    soundfile.write(out, samples, 16000, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def record(region, fill, painted, part):
    return struct.pack("<4H3BBI", *region, *fill, painted, len(part))


def write(name, kind, body, parts):
    head = MAGIC + struct.pack("<BBHI", kind, 1, 0, 16 + len(body))
    (HERE / name).write_bytes(head + body + b"".join(parts))


part = jpeg(24, 16, (200, 40, 30), (20, 60, 210))
write("image.ship", 1, struct.pack("<2H", 64, 48) + record((16, 8, 24, 16), (10, 20, 30), 1, part), [part])

frames = [jpeg(16, 16, (90, 90, 90), (160, 160, 160)), jpeg(8, 16, (30, 200, 30), (30, 200, 30))]
body = struct.pack("<2HIdII", 16, 16, 30, 29.97, 5, 2) + struct.pack("<5I", 0, 6, 12, 18, 24)
body += struct.pack("<I", 1) + record((0, 0, 16, 16), (1, 2, 3), 0, frames[0])
body += struct.pack("<I", 3) + record((8, 0, 8, 16), (4, 5, 6), 0, frames[1])
write("clip.ship", 2, body, frames)

ramp = (np.arange(2000) * 16 - 16000).astype(np.int16)
part = flac(ramp)
write("sound.ship", 3, struct.pack("<7I", 8000, 2, len(part), 100, 1100, 5000, 6000), [part])
