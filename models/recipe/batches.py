"""Draws training batches from the world: scenes, patches, log-mel, dropped tokens, packed questions."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers.audio_utils import mel_filter_bank

import world
from fast import Batch
from tokenizer import SYSTEM

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
MELS = torch.from_numpy(
    mel_filter_bank(201, 128, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney").astype(np.float32)
)
COLOR_NO = {c: i for i, c in enumerate(world.COLORS)}
SHAPE_NO = {s: i + 1 for i, s in enumerate(world.SHAPES)} | {"card": 7}
PITCH_NO = {p: i + 1 for i, p in enumerate(world.PITCHES)}
GLYPHS = world.DIGITS + world.LETTERS
WAY_NO = {d: i for i, d in enumerate(world.DIRECTIONS)}
TRAINING_SEEDS = 1_000_000_000  # training scenes have seeds from here on; held-out ones lie below


def patchify(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (frames, H, W, 3), one frame or pairs of them, to patches (T, N, C * frames per patch * 196) in 2x2 merge order."""
    f, h, w, _ = pixels.shape
    scale = (1 / (255 * STD)).astype(np.float32)
    x = torch.from_numpy(pixels.astype(np.float32) * scale - MEAN / STD)
    t = 1 if f == 1 else 2
    x = x.view(f // t, t, h // 28, 2, 14, w // 28, 2, 14, 3)
    return x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(f // t, h * w // 196, 3 * t * 196)


def log_mel(waves: torch.Tensor) -> torch.Tensor:
    """What WhisperFeatureExtractor gives for sounds padded with silence: (B, samples) to (B, 128, samples / 160)."""
    n = waves.shape[1] // 160
    padded = torch.nn.functional.pad(waves, (0, 800))
    spec = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)[..., :-1].abs() ** 2
    logs = (MELS.T @ spec).clamp(min=1e-10).log10()
    logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - 8.0)
    return ((logs + 4.0) / 4.0)[:, :, :n]


def cells(things: list, width: int, height: int, third: list[int]) -> torch.Tensor:
    """For every 28-pixel cell what covers most of it: (cells, 7) of shape, color, third attribute, zone of the cell, 1 where the
    thing's centre lies, and that centre in thousandths of the width and height; -100 where there is none."""
    out = torch.full((height // 28, width // 28, 7), -100)
    out[:, :, 4] = 0
    out[:, :, 0] = 0
    column = ((torch.arange(width // 28) * 28 + 14) * 3 // width).clamp(max=2)
    row = ((torch.arange(height // 28) * 28 + 14) * 3 // height).clamp(max=2)
    out[:, :, 3] = row[:, None] * 3 + column
    best = np.zeros((height // 28, width // 28))
    xs = np.arange(width // 28) * 28
    ys = np.arange(height // 28) * 28
    for t, extra in zip(things, third):
        cx = np.clip(np.minimum(xs + 28, t.x + t.r) - np.maximum(xs, t.x - t.r), 0, None)
        cy = np.clip(np.minimum(ys + 28, t.y + t.r) - np.maximum(ys, t.y - t.r), 0, None)
        cover = cy[:, None] * cx[None, :]
        here = (cover > best) & (cover > 100)
        best = np.where(here, cover, best)
        color = 7 if t.kind == "card" else COLOR_NO[t.color]
        here = torch.from_numpy(here)
        out[here, :3] = torch.tensor([SHAPE_NO[t.kind], color, extra])
        out[here, 5:] = torch.tensor([int(1000 * t.x / width), int(1000 * t.y / height)])
        out[min(int(t.y) // 28, height // 28 - 1), min(int(t.x) // 28, width // 28 - 1), 4] = 2 if t.kind == "card" else 1
    return out.flatten(0, 1)


@lru_cache(maxsize=100)
def coarse_to_fine(frames: int, height: int, width: int) -> torch.Tensor:
    """The rank of each token in a regular grid that grows finer: the first k are spread evenly, whatever k is."""
    def fineness(place: tuple[int, int, int]) -> list[int]:
        return [place[axis] >> bit & 1 for bit in range(12) for axis in range(3)]

    places = [(t, y, x) for t in range(frames) for y in range(height) for x in range(width)]
    order = sorted(range(len(places)), key=lambda i: fineness(places[i]))
    return torch.tensor(order).argsort()


class Maker:
    """Makes batches; `weights` (kind -> relative frequency) may be changed while training goes on."""

    def __init__(self, tok: Tokenizer, seed: int, weights_file: Path | None = None):
        self.tok = tok
        self.rng = random.Random(seed)
        self.next_seed = TRAINING_SEEDS + seed * 50_000_000
        self.weights: dict[str, float] = {}
        self.weights_file = weights_file
        self.made = 0
        self.hard = world.HARD  # kinds of which only some questions are asked
        self.seldom = 1.0  # this share
        tid = tok.token_to_id
        self.ends = (tid("<|vision_bos|>"), tid("<|vision_eos|>"), tid("<|audio_bos|>"), tid("<|audio_eos|>"))
        self.pads = (tid("<|IMAGE|>"), tid("<|VIDEO|>"), tid("<|AUDIO|>"))
        self.im_end = tid("<|im_end|>")
        self.enc = lru_cache(maxsize=200_000)(lambda s: tok.encode(s).ids)

    def scene_questions(self, scene: world.Scene, many: int, long_share: float, choice_share: float, text_share: float):
        """The questions asked of one scene: `many` short ones, by weight, and perhaps a description."""
        rng = self.rng
        pool = [q for q in world.questions(scene, rng) if q.kind not in self.hard or rng.random() < self.seldom]
        if not pool:
            pool = world.text_questions(rng) + world.text_questions(rng)
        elif rng.random() < text_share:
            pool += rng.sample(world.text_questions(rng), 1)
        # weighted choice without replacement: keys u^(1/w), the largest first
        pool.sort(key=lambda q: -(rng.random() ** (1 / max(self.weights.get(q.kind, 1.0), 1e-3))))
        out = []
        if rng.random() < long_share:
            out += [(q.text, q.answer, "describe", True) for q in world.long_questions(scene, rng)]
        for i, q in enumerate(pool[:many]):
            if i == 0 and q.choices and rng.random() < choice_share:
                text, _ = world.multiple_choice(q, rng)
                out.append((text, q.answer, "choice", False))
            else:
                out.append((q.text, q.answer, q.kind, False))
        return out

    def crowd(self, n: int, size=(224, 224)) -> Batch:
        """Crowded pictures for the auxiliary loss alone."""
        scenes = [world.crowd(self.next_seed + i, size) for i in range(n)]
        self.next_seed += n
        b = Batch(image_grid=(size[1] // 14, size[0] // 14))
        pics = []
        for s in scenes:
            pic = world.render_image(s)
            pics.append(patchify((world.jpeg(pic, self.rng.randint(70, 95)) if self.rng.random() < 0.3 else pic)[None])[0])
        b.image = torch.stack(pics)
        b.image_aux = torch.stack([cells(s.things, *size, [GLYPHS.index(t.glyph) if t.glyph else -100 for t in s.things]) for s in scenes])
        return b

    def make(self, media: tuple[str, ...], n: int, size=(112, 112), duration=2.0, sound=1.6, many=8, long_share=0.5,
             choice_share=0.3, text_share=0.4, drop=0.55, scenes=None, asks=None) -> Batch:
        """n scenes with these media. `scenes` and `asks` replace the drawn ones (for tests)."""
        rng = self.rng
        self.made += 1
        if self.weights_file and self.made % 100 == 1 and self.weights_file.exists():
            try:
                self.weights = json.loads(self.weights_file.read_text())
            except json.JSONDecodeError:
                pass  # being written just now; the next look will do
        if scenes is None:
            scenes = [world.make_scene(self.next_seed + i, media, size, duration, sound) for i in range(n)]
            self.next_seed += n
        b = Batch()
        order = list(media)
        rng.shuffle(order)
        vb, ve, ab, ae = self.ends
        head = self.enc(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n") if rng.random() < 0.3 else []
        text = list(head) + list(self.enc("<|im_start|>user\n"))
        pos: list[torch.Tensor] = []
        at = 0
        ranges: dict[str, tuple[int, int]] = {}
        evenness: dict[str, torch.Tensor] = {}
        length = 0

        def put_text(ids: list[int]) -> None:
            nonlocal at, length
            b.layout.append(list(ids))
            pos.append((torch.arange(len(ids)) + at).expand(3, -1))
            at += len(ids)
            length += len(ids)

        def put(kind: str, p: torch.Tensor) -> None:
            nonlocal at, length
            b.layout.append(kind)
            pos.append(p + at)
            at = int(pos[-1].max()) + 1
            ranges[kind] = (length, length + p.shape[1])
            length += p.shape[1]

        for m in order:
            if m == "audio":
                put_text(text + [ab])
                tokens = ((round(sound * 100) - 1) // 2 + 1 - 2) // 2 + 1
                put("audio", torch.arange(tokens).expand(3, -1))
                text = [ae]
            else:
                put_text(text + [vb])
                t, gh, gw = (1, size[1] // 28, size[0] // 28) if m == "image" else (round(duration * world.SAMPLED_FPS) // 2, 4, 4)
                ti, hi, wi = torch.meshgrid(torch.arange(t) * 25, torch.arange(gh), torch.arange(gw), indexing="ij")
                evenness[m] = coarse_to_fine(t, gh, gw)
                put(m, torch.stack([ti.flatten(), hi.flatten(), wi.flatten()]))
                text = [ve]
        put_text(text)
        pos_all = torch.cat(pos, 1)
        b.start = at

        if "image" in media:
            pics = []
            for s in scenes:
                pic = world.render_image(s)
                if rng.random() < 0.3:
                    pic = world.jpeg(pic, rng.randint(70, 95))
                pics.append(patchify(pic[None])[0])
            b.image = torch.stack(pics)
            b.image_grid = (size[1] // 14, size[0] // 14)
            b.image_aux = torch.stack(
                [cells(s.things, *size, [GLYPHS.index(t.glyph) if t.glyph else -100 for t in s.things]) for s in scenes]
            )
        if "video" in media:
            clips, marks = [], []
            for s in scenes:
                clip = world.render_clip(s)
                if rng.random() < 0.4:
                    q = rng.randint(65, 92)
                    clip = np.stack([world.jpeg(f, q) for f in clip])
                clips.append(patchify(clip))
                x0, y0, x1, y1 = s.path
                T = clips[-1].shape[0]
                per = []
                for t in range(T):
                    u = (2 * t + 0.5) / (2 * T - 1)
                    s.clip_things[0].x, s.clip_things[0].y = x0 + (x1 - x0) * u, y0 + (y1 - y0) * u
                    per.append(cells(s.clip_things, 112, 112, [WAY_NO[s.direction]] + [-100] * (len(s.clip_things) - 1)))
                marks.append(torch.cat(per))
            b.video, b.video_aux = torch.stack(clips), torch.stack(marks)
        if "audio" in media:
            waves = [world.render_sound(s) for s in scenes]
            waves = [world.mp3(w) if rng.random() < 0.15 else w for w in waves]
            b.mel = log_mel(torch.stack([torch.from_numpy(w) for w in waves]))
            a, z = ranges["audio"]
            b.audio_aux = torch.zeros(len(scenes), z - a, dtype=torch.long)
            mid = (np.arange(z - a) + 0.5) * 0.04
            for i, s in enumerate(scenes):
                for name, _, start, long in s.beeps:
                    b.audio_aux[i, torch.from_numpy((mid > start - 0.01) & (mid < start + long + 0.01))] = PITCH_NO[name]

        # Dropped tokens: anywhere, from the background, mostly from there, or all but an even sample of it. Every row keeps as many, so that rows stay equal.
        score = torch.full((len(scenes), length), 2.0)
        keep_n = length
        for kind, (a, z) in ranges.items():
            if rng.random() >= drop:
                continue
            value = torch.rand(len(scenes), z - a)
            n_kind = z - a
            if kind == "audio":
                k = round(n_kind * rng.uniform(0.4, 0.95))
                if rng.random() < 0.5:
                    value = value + 0.5 * (b.audio_aux > 0)
            else:
                seen = (b.image_aux if kind == "image" else b.video_aux)[:, :, 0] > 0
                u = rng.random()
                if u < 0.3:  # only what shows nothing
                    value = value + seen.float()
                    k = max(round(n_kind * rng.uniform(0.15, 0.8)), int(seen.sum(1).max()))
                elif u < 0.5:  # mostly that, as a keep order does which mistakes some of it
                    value = value + 0.6 * seen.float()
                    k = round(n_kind * rng.uniform(0.25, 0.9))
                elif u < 0.75:  # all but some that mostly show something, and an even sample of the others
                    head = (value + 0.6 * seen.float()).argsort(1, descending=True).argsort(1) < n_kind * rng.uniform(0.05, 0.25)
                    value = head.float() - evenness[kind] / n_kind
                    k = round(n_kind * rng.uniform(0.15, 0.9))
                else:
                    k = round(n_kind * rng.uniform(0.4, 0.95))
            k = max(1, min(k, n_kind))
            rank = value.argsort(1, descending=True).argsort(1)
            score[:, a:z] = torch.where(rank < k, 2.0, -1.0)
            keep_n -= n_kind - k
        b.keep = (score > 0).nonzero()[:, 1].view(len(scenes), keep_n)
        b.pos = pos_all[:, b.keep]

        # Segments in two groups by length, so that little is padding: short questions, and what is long.
        tail, new = list(self.enc("<|im_end|>\n<|im_start|>assistant\n")), self.im_end
        groups: list[list[list]] = [[[] for _ in scenes], [[] for _ in scenes]]
        for i, s in enumerate(scenes):
            for q, a, kind, long in asks[i] if asks else self.scene_questions(s, many, long_share, choice_share, text_share):
                ids_q, ids_a = list(self.enc(q)) + tail, list(self.enc(a)) + [new]
                ids = ids_q + ids_a[:-1]
                lab = [-100] * (len(ids_q) - 1) + ids_a
                wt = [0.0] * (len(ids_q) - 1) + [0.35 if long else 1.0] * len(ids_a)
                groups[len(ids) > 32][i].append((ids, lab, wt, kind))
        for rows in groups:
            K = max(len(r) for r in rows)
            if K == 0:
                continue
            L = max(len(x[0]) for r in rows for x in r)

            def pad(col: int, fill, dtype=torch.long) -> torch.Tensor:
                empty = [[fill] * L]
                return torch.tensor([[list(x[col]) + [fill] * (L - len(x[col])) for x in r] + empty * (K - len(r)) for r in rows], dtype=dtype)

            b.seg.append(pad(0, 0))
            b.label.append(pad(1, -100))
            b.weight.append(pad(2, 0.0, torch.float32))
            b.kinds.append([[x[3] for x in r] for r in rows])
        return b
