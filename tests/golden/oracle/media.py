"""Small synthetic inputs: pictures of odd sizes, frame stacks, 16 kHz sounds. All from fixed seeds."""

import wave

import numpy as np
import zstandard
from PIL import Image
from safetensors.numpy import load

from .paths import MEDIA, packed, write_json, write_tensors

# name -> (width, height, mode)
PICTURES = {
    "a": (61, 45, "RGB"),
    "b": (97, 130, "RGB"),
    "c": (224, 56, "RGB"),
    "elongated": (300, 20, "RGB"),
    "small": (9, 7, "RGB"),
    "exact": (84, 56, "RGB"),
    "gray": (50, 70, "L"),
    "alpha": (64, 40, "RGBA"),
}
# name -> (frames, width, height, frames per second the clip was taken at)
CLIPS = {
    "clip_a": (19, 45, 35, 10.0),
    "clip_b": (7, 45, 33, 1.0),
    "clip_c": (5, 36, 60, 4.0),
}
# name -> number of 16 kHz samples. 160 samples are one mel frame (hop), 16 frames one chunk at n_window 8.
SOUNDS = {
    "tone_0s30": 4800,
    "chirp_0s64": 10240,
    "odd_0s50": 8037,
    "noise_1s00": 16000,
    "sweep_2s45": 39277,
}


def picture(width, height, mode, seed):
    """A smooth gradient with hard-edged shapes and a little noise, so that resizing errors show."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    base = np.stack(
        [
            128 + 100 * np.sin(x / width * 5 + seed),
            255 * y / max(height - 1, 1),
            128 + 90 * np.cos((x + y) / (width + height) * 9 + seed),
        ],
        axis=-1,
    )
    for _ in range(4):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        r = rng.uniform(0.1, 0.3) * min(width, height) + 1
        base[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = rng.uniform(0, 255, 3)
    base[height // 3 : height // 3 + 2, :] = [250, 250, 5]
    base += rng.integers(-6, 7, base.shape)
    rgb = np.clip(np.rint(base), 0, 255).astype(np.uint8)
    if mode == "L":
        return rgb[..., 1]
    if mode == "RGBA":
        alpha = np.clip(np.rint(255 * x / (width - 1)), 0, 255).astype(np.uint8)
        return np.concatenate([rgb, alpha[..., None]], axis=-1)
    return rgb


def clip(frames, width, height, seed):
    """A disc that moves over a drifting gradient: u8 [frames, height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        f = np.stack(
            [
                255 * ((x / width + 0.04 * t) % 1.0),
                128 + 100 * np.sin(y / height * 4 + 0.3 * t + seed),
                np.full_like(x, (20 + 37 * t + 11 * seed) % 256),
            ],
            axis=-1,
        )
        cx = width * (0.5 + 0.35 * np.cos(0.5 * t + seed))
        cy = height * (0.5 + 0.35 * np.sin(0.5 * t + seed))
        f[(x - cx) ** 2 + (y - cy) ** 2 < (min(width, height) / 5) ** 2] = [240, 30, 60]
        out[t] = np.clip(np.rint(f), 0, 255).astype(np.uint8)
    return out


def sound(name, samples):
    """Float samples in [-1, 1) at 16 kHz."""
    t = np.arange(samples) / 16000.0
    rng = np.random.default_rng(len(name) * 1000 + samples)
    if name.startswith("tone"):
        s = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 1730 * t)
    elif name.startswith("noise"):
        s = 0.3 * rng.standard_normal(samples) * np.exp(-2 * t)
    elif name.startswith("odd"):
        s = 0.5 * np.sign(np.sin(2 * np.pi * 210 * t)) * (t % 0.2 < 0.13) + 0.01 * rng.standard_normal(samples)
    else:
        k = 3000.0 / (samples / 16000.0)
        s = 0.5 * np.sin(2 * np.pi * (150 * t + 0.5 * k * t * t)) * (0.6 + 0.4 * np.cos(2 * np.pi * 3 * t))
    return np.clip(s, -1.0, 0.9999)


def write_wav16(path, samples, rate=16000):
    """PCM16 little-endian; `samples` is [n] or [n, channels] in [-1, 1)."""
    pcm = np.rint(samples * 32768.0).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1 if pcm.ndim == 1 else pcm.shape[1])
        w.setsampwidth(2)
        w.setframerate(rate)
        w.writeframes(pcm.tobytes())


def load_picture(rel):
    return Image.open(MEDIA.parent / rel)


def load_clip(rel):
    """Frames as u8 [T, H, W, 3]."""
    return load(zstandard.decompress(packed(MEDIA.parent / rel).read_bytes()))["frames"]


def load_sound(rel):
    """Float32 samples: pcm16 / 32768."""
    with wave.open(str(MEDIA.parent / rel), "rb") as w:
        return np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float32) / 32768.0


def make():
    MEDIA.mkdir(parents=True, exist_ok=True)
    index = {"pictures": {}, "clips": {}, "sounds": {}}
    for seed, (name, (w, h, mode)) in enumerate(PICTURES.items(), start=1):
        Image.fromarray(picture(w, h, mode, seed)).save(MEDIA / f"{name}.png", optimize=True)
        index["pictures"][f"media/{name}.png"] = {"width": w, "height": h, "mode": mode}
    for seed, (name, (n, w, h, fps)) in enumerate(CLIPS.items(), start=1):
        write_tensors(MEDIA / f"{name}.safetensors", {"frames": clip(n, w, h, seed)})
        index["clips"][f"media/{name}.safetensors"] = {"frames": n, "width": w, "height": h, "fps": fps}
    for name, n in SOUNDS.items():
        write_wav16(MEDIA / f"{name}.wav", sound(name, n))
        index["sounds"][f"media/{name}.wav"] = {"samples": n, "sampling_rate": 16000}
    write_json(MEDIA / "index.json", index)
