"""The synthetic world: scenes of shapes, short clips, beeps, and questions about them.

Everything is drawn from one integer seed: `make_scene(seed, ...)` always gives the same scene, the same pixels, the same
samples and the same questions. Objects keep about the same size in pixels at every resolution, so a larger picture is
mostly background.

Units: pixels for places and sizes, seconds for times, hertz for pitches. Pictures are uint8 arrays (height, width, 3),
sounds are float32 arrays in [-1, 1] at 16 kHz.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SAMPLE_RATE = 16_000
STORED_FPS = 4  # frames per second in the file
SAMPLED_FPS = 2  # frames per second that the processor takes
CLIP_SIZE = 112

COLORS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 40),
    "purple": (150, 50, 180),
    "orange": (245, 140, 20),
    "white": (248, 248, 248),
}
SHAPES = ["circle", "square", "triangle", "star", "cross", "ring"]
PLURAL = {"circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars", "cross": "crosses", "ring": "rings"}
DIGITS = "0123456789"
LETTERS = "ACEHKLPTXZ"
ZONES = ["top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"]
PITCHES = {"low": (260.0, 380.0), "middle": (720.0, 980.0), "high": (1900.0, 2600.0)}
ORDINALS = ["first", "second", "third", "fourth", "fifth"]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("left", "right"), ("day", "night"), ("old", "new"),
    ("fast", "slow"), ("high", "low"), ("open", "closed"), ("full", "empty"), ("wet", "dry"), ("light", "dark"),
    ("hard", "soft"), ("happy", "sad"), ("loud", "quiet"), ("long", "short"),
]
FACTS = [
    ("What color is grass?", "green"), ("What color is snow?", "white"), ("What color is a ripe tomato?", "red"),
    ("What color is a banana?", "yellow"), ("What color is the clear sky?", "blue"), ("What color is a carrot?", "orange"),
    ("How many legs does a dog have?", "4"), ("How many legs does a bird have?", "2"), ("How many days are in a week?", "7"),
    ("How many wheels does a car have?", "4"), ("How many sides does a triangle have?", "3"),
    ("How many sides does a square have?", "4"), ("How many fingers are on one hand?", "5"),
    ("What animal says meow?", "cat"), ("What animal says woof?", "dog"), ("What animal says moo?", "cow"),
]
# Sizes of pictures (width, height). Every side is a multiple of the 112 pixels of a vision window.
SIZES = [(112, 112), (224, 112), (112, 224), (224, 224), (336, 224), (448, 448)]


@dataclass
class Thing:
    """One object of a scene; `zone` is its cell of the 3 by 3 grid, (x, y) its centre and `r` its half size in pixels."""

    kind: str  # a shape or "card"
    color: str
    zone: int
    x: float
    y: float
    r: float
    angle: float
    glyph: str = ""
    tint: tuple[int, int, int] = (0, 0, 0)

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"


@dataclass
class Question:
    """A question with its one right answer, the modalities it needs, and what kind it is."""

    text: str
    answer: str
    kind: str
    needs: list[str]
    long: bool = False
    choices: list[str] = field(default_factory=list)  # wrong answers that are plausible, for multiple choice


@dataclass
class Scene:
    seed: int
    size: tuple[int, int] | None = None
    things: list[Thing] = field(default_factory=list)
    tone: str = "dark"
    duration: float = 0.0  # seconds of the clip, 0 without one
    clip_things: list[Thing] = field(default_factory=list)  # the first one moves
    direction: str = ""
    path: tuple[float, float, float, float] = (0, 0, 0, 0)
    sound_length: float = 0.0  # seconds of the sound, 0 without one
    beeps: list[tuple[str, float, float, float]] = field(default_factory=list)  # pitch name, Hz, start s, length s

    @property
    def media(self) -> list[str]:
        return [m for m, here in (("image", self.size), ("video", self.duration), ("audio", self.sound_length)) if here]

    @property
    def shapes(self) -> list[Thing]:
        return [t for t in self.things if t.kind != "card"]

    @property
    def card(self) -> Thing | None:
        return next((t for t in self.things if t.kind == "card"), None)


# ---------------------------------------------------------------------------------------------------------------- scenes


def _tint(rng: random.Random, color: str) -> tuple[int, int, int]:
    return tuple(max(0, min(255, c + rng.randint(-14, 14))) for c in COLORS[color])


def _place(rng: random.Random, zone: int, size: tuple[int, int], r: float) -> tuple[float, float]:
    """A centre well inside the zone, so that the answer to "where" is never in doubt."""
    out = []
    for axis, cell in ((0, zone % 3), (1, zone // 3)):
        third = size[axis] / 3
        lo, hi = cell * third, (cell + 1) * third
        margin = max(third * 0.16, 0)
        lo, hi = max(lo + margin, r + 1), min(hi - margin, size[axis] - r - 1)
        out.append((lo + hi) / 2 if hi <= lo else rng.uniform(lo, hi))
    return out[0], out[1]


def make_scene(
    seed: int,
    media: tuple[str, ...] = ("image",),
    size: tuple[int, int] = (224, 224),
    duration: float = 2.0,
    sound_length: float = 1.6,
) -> Scene:
    """The scene of this seed. `media` says which of image, video and audio it has."""
    rng = random.Random(seed * 1_000_003 + 17)
    scene = Scene(seed)
    if "image" in media:
        scene.size = size
        scene.tone = rng.choice(["dark", "light"])
        has_card = rng.random() < 0.55
        n = rng.randint(1, 5)
        zones = rng.sample(range(9), n + has_card)
        few_shapes = rng.sample(SHAPES, rng.choice([2, 3, 6]))  # repeats make counting worth asking
        few_colors = rng.sample(list(COLORS), rng.choice([2, 3, 7]))
        for i, zone in enumerate(zones):
            r = rng.uniform(12.5, 16.5)
            x, y = _place(rng, zone, size, r)
            if has_card and i == n:
                glyph = rng.choice(DIGITS if rng.random() < 0.6 else LETTERS)
                scene.things.append(Thing("card", "white", zone, x, y, r, 0.0, glyph))
            else:
                color = rng.choice(few_colors)
                angle = rng.uniform(-15, 15)
                scene.things.append(Thing(rng.choice(few_shapes), color, zone, x, y, r, angle, tint=_tint(rng, color)))
        scene.things.sort(key=lambda t: t.zone)
    if "video" in media:
        scene.duration = duration
        n = rng.randint(1, 3)
        scene.direction = rng.choice(list(DIRECTIONS))
        dx, dy = DIRECTIONS[scene.direction]
        lane = rng.randint(0, 2)
        r = rng.uniform(12.5, 15.5)
        across = CLIP_SIZE * (lane + 0.5) / 3 + rng.uniform(-2, 2)
        a = rng.uniform(r + 1, r + 12)
        b = rng.uniform(CLIP_SIZE - r - 12, CLIP_SIZE - r - 1)
        if dx + dy < 0:
            a, b = b, a
        scene.path = (a, across, b, across) if dx else (across, a, across, b)
        color = rng.choice(list(COLORS))
        mover = Thing(rng.choice(SHAPES), color, -1, 0, 0, r, rng.uniform(-15, 15), tint=_tint(rng, color))
        scene.clip_things.append(mover)
        free = [z for z in range(9) if (z // 3 if dx else z % 3) != lane]
        for zone in sorted(rng.sample(free, n - 1)):
            r = rng.uniform(12.5, 15.5)
            x, y = _place(rng, zone, (CLIP_SIZE, CLIP_SIZE), r)
            color = rng.choice([c for c in COLORS if c != mover.color])
            shape = rng.choice([s for s in SHAPES if s != mover.kind])
            scene.clip_things.append(Thing(shape, color, zone, x, y, r, rng.uniform(-15, 15), tint=_tint(rng, color)))
    if "audio" in media:
        scene.sound_length = sound_length
        n = rng.randint(1, 5)
        slot = (sound_length - 0.06) / n
        names = [rng.choice(list(PITCHES)) for _ in range(n)]
        for i, name in enumerate(names):
            length = rng.uniform(0.08, min(0.16, slot - 0.085))
            start = 0.03 + i * slot + rng.uniform(0, min(slot - length - 0.08, 0.12))
            scene.beeps.append((name, rng.uniform(*PITCHES[name]), start, length))
    return scene


def crowd(seed: int, size: tuple[int, int] = (224, 224)) -> Scene:
    """A picture crammed with things, to teach the vision tower what they look like; no questions are asked about it."""
    rng = random.Random(seed * 1_000_003 + 29)
    scene = Scene(seed, size=size, tone=rng.choice(["dark", "light"]))
    step = 44
    ox, oy = rng.uniform(18, 28), rng.uniform(18, 28)
    for row in range((size[1] - 30) // step + 1):
        for column in range((size[0] - 30) // step + 1):
            r = rng.uniform(12.5, 16.5)
            x = min(max(ox + column * step + rng.uniform(-5, 5), r + 1), size[0] - r - 1)
            y = min(max(oy + row * step + rng.uniform(-5, 5), r + 1), size[1] - r - 1)
            if rng.random() < 0.4:
                scene.things.append(Thing("card", "white", -1, x, y, r, 0.0, rng.choice(DIGITS + LETTERS)))
            else:
                color = rng.choice(list(COLORS))
                scene.things.append(Thing(rng.choice(SHAPES), color, -1, x, y, r, rng.uniform(-15, 15), tint=_tint(rng, color)))
    return scene


# ------------------------------------------------------------------------------------------------------------- rendering


@lru_cache(maxsize=4096)
def _mask(kind: str, r4: int, angle: int) -> np.ndarray:
    """Coverage of a shape as float32 in [0, 1]; r4 is the half size in quarter pixels, angle in degrees."""
    scale, r = 4, r4 / 4
    side = int(math.ceil(r)) * 2 + 4
    big = Image.new("L", (side * scale, side * scale), 0)
    draw = ImageDraw.Draw(big)
    c, R = side * scale / 2, r * scale
    turn = math.radians(angle)

    def points(radii: list[float], first: float) -> list[tuple[float, float]]:
        step = 2 * math.pi / len(radii)
        return [(c + q * math.cos(first + turn + i * step), c + q * math.sin(first + turn + i * step)) for i, q in enumerate(radii)]

    if kind == "circle":
        draw.ellipse([c - R * 0.95, c - R * 0.95, c + R * 0.95, c + R * 0.95], fill=255)
    elif kind == "ring":
        draw.ellipse([c - R, c - R, c + R, c + R], fill=255)
        draw.ellipse([c - R * 0.55, c - R * 0.55, c + R * 0.55, c + R * 0.55], fill=0)
    elif kind == "square":
        draw.polygon(points([R * 1.2] * 4, math.pi / 4), fill=255)
    elif kind == "triangle":
        draw.polygon(points([R * 1.15] * 3, -math.pi / 2), fill=255)
    elif kind == "star":
        draw.polygon(points([R * 1.12, R * 0.46] * 5, -math.pi / 2), fill=255)
    elif kind == "cross":
        h = R * 0.36
        for w, t in ((R, h), (h, R)):
            corners = [(-w, -t), (w, -t), (w, t), (-w, t)]
            draw.polygon(
                [(c + x * math.cos(turn) - y * math.sin(turn), c + x * math.sin(turn) + y * math.cos(turn)) for x, y in corners],
                fill=255,
            )
    small = big.resize((side, side), Image.BOX)
    return np.asarray(small, dtype=np.float32) / 255


@lru_cache(maxsize=1024)
def _card(glyph: str, r2: int) -> np.ndarray:
    """A light card with a dark glyph, uint8 (side, side, 3); r2 is the half size in half pixels."""
    side = r2 + 1
    card = Image.new("RGB", (side * 4, side * 4), (236, 236, 226))
    draw = ImageDraw.Draw(card)
    font = ImageFont.load_default(size=side * 4 * 0.92)
    x0, y0, x1, y1 = draw.textbbox((0, 0), glyph, font=font)
    draw.text((side * 2 - (x0 + x1) / 2, side * 2 - (y0 + y1) / 2), glyph, font=font, fill=(15, 15, 20), stroke_width=3, stroke_fill=(15, 15, 20))
    return np.asarray(card.resize((side, side), Image.BOX))


_NOISE = np.random.default_rng(5).normal(0, 1, (1024, 1024, 1)).astype(np.float32)


def _background(rng: np.random.Generator, width: int, height: int, tone: str) -> np.ndarray:
    """A wall that is lit from above and warmer on the right, with a little grain: float32 (height, width, 3)."""
    base = rng.uniform(52, 78) if tone == "dark" else rng.uniform(138, 164)
    tint = rng.uniform(-8, 8, 3).astype(np.float32)
    y = np.linspace(1, -1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    out = base + tint + y * 20 + x * np.array([16, 0, -16], dtype=np.float32)
    oy, ox = rng.integers(0, 1024 - height), rng.integers(0, 1024 - width)
    return out + _NOISE[oy : oy + height, ox : ox + width] * rng.uniform(0.5, 4.0)


def _draw(canvas: np.ndarray, thing: Thing, x: float, y: float) -> None:
    if thing.kind == "card":
        tile = _card(thing.glyph, int(round(thing.r * 2)))
        h = tile.shape[0]
        top, left = int(round(y - h / 2)), int(round(x - h / 2))
        top, left = max(0, min(top, canvas.shape[0] - h)), max(0, min(left, canvas.shape[1] - h))
        canvas[top : top + h, left : left + h] = tile
        return
    mask = _mask(thing.kind, int(round(thing.r * 2)) * 2, int(round(thing.angle / 5)) * 5)
    h = mask.shape[0]
    top, left = int(round(y - h / 2)), int(round(x - h / 2))
    t0, l0 = max(0, -top), max(0, -left)
    t1, l1 = min(h, canvas.shape[0] - top), min(h, canvas.shape[1] - left)
    m = mask[t0:t1, l0:l1, None]
    part = canvas[top + t0 : top + t1, left + l0 : left + l1]
    part *= 1 - m
    part += m * np.array(thing.tint, dtype=np.float32)


def render_image(scene: Scene) -> np.ndarray:
    """The picture of the scene, uint8 (height, width, 3)."""
    rng = np.random.default_rng(scene.seed * 7 + 1)
    canvas = _background(rng, *scene.size, scene.tone)
    for thing in scene.things:
        _draw(canvas, thing, thing.x, thing.y)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def render_clip(scene: Scene, fps: int = SAMPLED_FPS) -> np.ndarray:
    """The clip as uint8 (frames, 112, 112, 3). At SAMPLED_FPS it is exactly every second frame of STORED_FPS."""
    rng = np.random.default_rng(scene.seed * 7 + 2)
    stored = round(scene.duration * STORED_FPS)
    back = _background(rng, CLIP_SIZE, CLIP_SIZE, rng.choice(["dark", "light"]))
    for thing in scene.clip_things[1:]:
        _draw(back, thing, thing.x, thing.y)
    x0, y0, x1, y1 = scene.path
    frames = []
    for i in range(0, stored, STORED_FPS // fps):
        canvas = back.copy()
        s = i / (stored - STORED_FPS // SAMPLED_FPS)  # the last sampled frame is where the path ends
        s = min(s, 1.0)
        _draw(canvas, scene.clip_things[0], x0 + (x1 - x0) * s, y0 + (y1 - y0) * s)
        frames.append(np.clip(canvas, 0, 255).astype(np.uint8))
    return np.stack(frames)


def render_sound(scene: Scene) -> np.ndarray:
    """The sound, float32 (samples,) at 16 kHz."""
    rng = np.random.default_rng(scene.seed * 7 + 3)
    n = round(scene.sound_length * SAMPLE_RATE)
    wave = rng.normal(0, rng.uniform(0.0008, 0.006), n).astype(np.float32)
    loud = rng.uniform(0.25, 0.7)
    for _, hertz, start, length in scene.beeps:
        a, m = int(start * SAMPLE_RATE), int(length * SAMPLE_RATE)
        t = np.arange(m, dtype=np.float32) / SAMPLE_RATE
        fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.012)
        tone = np.sin(2 * np.pi * hertz * t) + 0.15 * np.sin(4 * np.pi * hertz * t)
        wave[a : a + m] += (loud * rng.uniform(0.8, 1.2) * fade * tone).astype(np.float32)
    return np.clip(wave, -1, 1)


def mp3(wave: np.ndarray) -> np.ndarray:
    """The sound after an MP3 round trip, as many samples as before."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE, format="MP3")
    buffer.seek(0)
    heard = soundfile.read(buffer, dtype="float32")[0][: len(wave)]
    return np.pad(heard, (0, len(wave) - len(heard)))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The picture after a JPEG round trip (4:2:0, as most encoders do)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


# ------------------------------------------------------------------------------------------------------------- questions


def _at(zone: int) -> str:
    return "in the center" if zone == 4 else f"at the {ZONES[zone]}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _article(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def describe_image(scene: Scene) -> str:
    shapes = scene.shapes
    n = len(shapes)
    text = f"The picture has a {scene.tone} background and shows {NUMBERS[n]} shape{'s' if n > 1 else ''}: "
    text += _join([f"{_article(t.name)} {_at(t.zone)}" for t in shapes]) + "."
    card = scene.card
    if card:
        what = "digit" if card.glyph in DIGITS else "letter"
        text += f" A card {_at(card.zone)} shows the {what} {card.glyph}."
    else:
        text += " There is no card."
    return text


def describe_clip(scene: Scene) -> str:
    n = len(scene.clip_things)
    mover, rest = scene.clip_things[0], scene.clip_things[1:]
    way = scene.direction if scene.direction in ("up", "down") else f"to the {scene.direction}"
    text = f"The clip shows {NUMBERS[n]} shape{'s' if n > 1 else ''}. {_article(mover.name).capitalize()} moves {way}."
    if rest:
        text += " " + _join([f"{_article(t.name)} stays {_at(t.zone)}" for t in rest]).capitalize() + "."
    else:
        text += " Nothing else is there."
    return text


def describe_sound(scene: Scene) -> str:
    n = len(scene.beeps)
    text = f"The sound has {NUMBERS[n]} beep{'s' if n > 1 else ''}: "
    return text + _join([f"the {ORDINALS[i]} is {b[0]}" for i, b in enumerate(scene.beeps)]) + "."


def _others(rng: random.Random, pool: list[str], answer: str, n: int = 3) -> list[str]:
    return rng.sample([p for p in pool if p != answer], n)


def _say(rng: random.Random, *phrases: str) -> str:
    return rng.choice(phrases)


def image_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Every kind of question about the picture that has one clear answer."""
    out: list[Question] = []
    need = ["image"]
    shapes = scene.shapes
    kinds = [t.kind for t in shapes]
    colors = [t.color for t in shapes]
    names = [t.name for t in shapes]

    def add(kind: str, text: str, answer: str, choices: list[str] | None = None) -> None:
        out.append(Question(text, answer, kind, need, choices=choices or []))

    def refer(t: Thing) -> str | None:
        """The shortest name that only this one has, or nothing."""
        if kinds.count(t.kind) == 1 and rng.random() < 0.5:
            return t.kind
        if names.count(t.name) == 1:
            return t.name
        return t.kind if kinds.count(t.kind) == 1 else None

    unique = [t for t in shapes if kinds.count(t.kind) == 1]
    if unique:
        t = rng.choice(unique)
        add("color", _say(rng, f"What color is the {t.kind}?", f"What is the color of the {t.kind}?", f"Which color does the {t.kind} have?"), t.color, _others(rng, list(COLORS), t.color))
    unique = [t for t in shapes if colors.count(t.color) == 1]
    if unique:
        t = rng.choice(unique)
        add("shape", _say(rng, f"What shape is {t.color}?", f"Which shape is {t.color}?", f"What is the {t.color} thing?"), t.kind, _others(rng, SHAPES, t.kind))
    n = len(shapes)
    add("count", _say(rng, "How many shapes are there?", "How many shapes are in the picture?", "Count the shapes."), str(n), _others(rng, list("12345"), str(n)))
    # Asked of something that is there two times out of three, so that zero is not the usual answer.
    if rng.random() < 0.5:
        s = rng.choice(kinds) if rng.random() < 0.67 else rng.choice(SHAPES)
        k = kinds.count(s)
        add("count-some", _say(rng, f"How many {PLURAL[s]} are there?", f"How many {PLURAL[s]} are in the picture?", f"Count the {PLURAL[s]}."), str(k), _others(rng, list("01234"), str(k)))
    else:
        c = rng.choice(colors) if rng.random() < 0.67 else rng.choice(list(COLORS))
        k = colors.count(c)
        add("count-some", _say(rng, f"How many {c} shapes are there?", f"How many shapes are {c}?", f"Count the {c} shapes."), str(k), _others(rng, list("01234"), str(k)))
    if rng.random() < 0.5:
        name, yes = rng.choice(names), "yes"
    else:
        t = rng.choice(shapes)  # a near miss: one of the two attributes is there
        pool = [f"{c} {t.kind}" for c in COLORS] + [f"{t.color} {s}" for s in SHAPES]
        name, yes = rng.choice([p for p in pool if p not in names]), "no"
    add("exists", _say(rng, f"Is there {_article(name)}?", f"Is there {_article(name)} in the picture?", f"Can you see {_article(name)}?"), yes)
    named = [(t, refer(t)) for t in shapes]
    named = [(t, r) for t, r in named if r]
    if named:
        t, r = rng.choice(named)
        z = ZONES[t.zone]
        add("where", _say(rng, f"Where is the {r}?", f"In which part of the picture is the {r}?"), z, _others(rng, ZONES, z))
    t = rng.choice(shapes)
    z = ZONES[t.zone]
    place = "in the center" if t.zone == 4 else f"at the {z}"
    add("what-at", _say(rng, f"What is {place}?", f"Which shape is {place}?"), t.name, _others(rng, [f"{c} {s}" for c in COLORS for s in SHAPES], t.name))
    pairs = [(a, b) for a in named for b in named if a[0] is not b[0] and a[1] != b[1]]
    across = [(a, b) for a, b in pairs if a[0].zone % 3 != b[0].zone % 3]
    above = [(a, b) for a, b in pairs if a[0].zone // 3 != b[0].zone // 3]
    if across:
        (a, ra), (b, rb) = rng.choice(across)
        if rng.random() < 0.5:
            add("relation", f"Which is further left, the {ra} or the {rb}?", ra if a.x < b.x else rb)
        else:
            add("relation", f"Which is further right, the {ra} or the {rb}?", ra if a.x > b.x else rb)
    if above:
        (a, ra), (b, rb) = rng.choice(above)
        if rng.random() < 0.5:
            add("relation", f"Which is higher, the {ra} or the {rb}?", ra if a.y < b.y else rb)
        else:
            add("relation", f"Which is lower, the {ra} or the {rb}?", ra if a.y > b.y else rb)
    card = scene.card
    if card:
        what = "digit" if card.glyph in DIGITS else "letter"
        pool = list(DIGITS if what == "digit" else LETTERS)
        add("read", _say(rng, f"What {what} is on the card?", f"Which {what} is printed on the card?", f"Read the {what}.", "What is printed on the card?"), card.glyph, _others(rng, pool, card.glyph))
        z = ZONES[card.zone]
        add("where-card", _say(rng, "Where is the card?", "In which part of the picture is the card?"), z, _others(rng, ZONES, z))
    return out


def clip_questions(scene: Scene, rng: random.Random) -> list[Question]:
    out: list[Question] = []
    need = ["video"]
    mover = scene.clip_things[0]
    n = len(scene.clip_things)

    def add(kind: str, text: str, answer: str) -> None:
        out.append(Question(text, answer, kind, need))

    add("direction", _say(rng, "Which way does it move?", f"Which way does the {mover.kind} move?", f"In which direction does the {mover.color} {mover.kind} move?", "What is the direction of the motion?"), scene.direction)
    add("moving", _say(rng, "What moves?", "What is moving in the clip?", "Which shape moves?"), mover.name)
    add("moving-color", _say(rng, "What color is the moving shape?", "What is the color of the thing that moves?"), mover.color)
    add("clip-count", _say(rng, "How many shapes are in the clip?", "How many shapes does the clip show?"), str(n))
    add("clip-still", _say(rng, "How many shapes do not move?", "How many shapes stay still?"), str(n - 1))
    return out


def sound_questions(scene: Scene, rng: random.Random) -> list[Question]:
    out: list[Question] = []
    need = ["audio"]
    names = [b[0] for b in scene.beeps]
    n = len(names)

    def add(kind: str, text: str, answer: str) -> None:
        out.append(Question(text, answer, kind, need))

    add("beeps", _say(rng, "How many beeps are there?", "How many beeps do you hear?", "Count the beeps."), str(n))
    i = rng.randrange(n)
    which = "only" if n == 1 else ("last" if i == n - 1 and rng.random() < 0.6 else ORDINALS[i])
    add("pitch", _say(rng, f"What pitch is the {which} beep?", f"Is the {which} beep low, middle or high?", f"How high is the {which} beep?"), names[i])
    p = rng.choice(list(PITCHES))
    add("beeps-some", _say(rng, f"How many {p} beeps are there?", f"How many beeps are {p}?", f"Count the {p} beeps."), str(names.count(p)))
    if 2 <= n <= 4:
        add("order", _say(rng, "What is the order of the pitches?", "Name the pitches in order.", "Which pitches do you hear, in order?"), ", ".join(names))
    return out


def joint_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Questions that need the picture and the sound together."""
    out: list[Question] = []
    need = ["image", "audio"]
    n, b = len(scene.shapes), len(scene.beeps)
    card = scene.card

    def add(kind: str, text: str, answer: str) -> None:
        out.append(Question(text, answer, kind, need))

    more = "beeps" if b > n else "shapes" if n > b else "equal"
    add("more", _say(rng, "Are there more beeps or more shapes?", "Which are more, the beeps or the shapes?"), more)
    add("total", _say(rng, "How many beeps and shapes are there together?", "What is the number of beeps plus the number of shapes?"), str(n + b))
    if card and card.glyph in DIGITS:
        add("digit-plus-beeps", _say(rng, "What is the printed digit plus the number of beeps?", "Add the number of beeps to the digit on the card."), str(int(card.glyph) + b))
    return out


def text_questions(rng: random.Random) -> list[Question]:
    out: list[Question] = []

    def add(kind: str, text: str, answer: str) -> None:
        out.append(Question(text, answer, kind, []))

    a, b = rng.randint(0, 9), rng.randint(0, 9)
    add("sum", _say(rng, f"What is {a} plus {b}?", f"{a} + {b} = ?", f"Add {a} and {b}."), str(a + b))
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    a, b = max(a, b), min(a, b)
    add("difference", _say(rng, f"What is {a} minus {b}?", f"{a} - {b} = ?"), str(a - b))
    a, b = rng.sample(range(20), 2)
    add("larger", f"Which is larger, {a} or {b}?", str(max(a, b))) if rng.random() < 0.5 else add("larger", f"Which is smaller, {a} or {b}?", str(min(a, b)))
    p, q = rng.choice(OPPOSITES)
    p, q = (p, q) if rng.random() < 0.5 else (q, p)
    add("opposite", _say(rng, f"What is the opposite of {p}?", f"Name the opposite of {p}."), q)
    fact, answer = rng.choice(FACTS)
    add("fact", fact, answer)
    i = rng.randrange(25)
    add("next-letter", f"Which letter comes after {chr(65 + i)}?", chr(66 + i))
    return out


def long_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """One question whose answer describes all media of the scene."""
    media = scene.media
    parts = []
    if "image" in media:
        parts.append(describe_image(scene))
    if "video" in media:
        parts.append(describe_clip(scene))
    if "audio" in media:
        parts.append(describe_sound(scene))
    if not parts:
        return []
    ask = _say(rng, "Describe the scene.", "Describe everything.", "Please describe what is given in detail.")
    return [Question(ask, " ".join(parts), "describe", list(media), long=True)]


# Kinds that take counting or comparing; `train.py --seldom` asks them seldom.
HARD = {"count", "count-some", "relation", "more", "total", "digit-plus-beeps"}


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Every short question of the scene, in a fixed order."""
    media = scene.media
    out: list[Question] = []
    if "image" in media:
        out += image_questions(scene, rng)
    if "video" in media:
        out += clip_questions(scene, rng)
    if "audio" in media:
        out += sound_questions(scene, rng)
    if "image" in media and "audio" in media:
        out += joint_questions(scene, rng)
    return out


def choice_prompt(question: str, options: list[str], hint: str = "") -> str:
    """A multiple-choice question in the wording that MMBench tools use."""
    text = f"Hint: {hint}\n" if hint else ""
    text += f"Question: {question}\nOptions:\n"
    text += "".join(f"{letter}. {option}\n" for letter, option in zip("ABCDE", options))
    return text + "Please select the correct answer from the options above."


def multiple_choice(q: Question, rng: random.Random) -> tuple[str, str] | None:
    """The question as (prompt, right letter), its options shuffled."""
    if len(q.choices) < 3:
        return None
    options = [q.answer] + q.choices[:3]
    rng.shuffle(options)
    return choice_prompt(q.text, options), "ABCD"[options.index(q.answer)]
