"""Picks a picture, a clip and a sound for people to try, with questions that the target answers rightly.

    python demo_media.py --target ../demo-target --out ../demo-media
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import soundfile
from PIL import Image

import world
from data import write_clip
from evaluate import Model, read_media

FIRST_SEED = 500_000_000  # neither training nor held-out scenes


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--target", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = Model(args.target)

    def right(q: dict) -> bool:
        return model.generate(read_media(args.out, q), q) == q["expected"]

    for seed in range(FIRST_SEED, FIRST_SEED + 800):
        scene = world.make_scene(seed, ("image", "video", "audio"), (448, 448), 3.0, 1.6)
        card = scene.card
        if not (len(scene.shapes) in (3, 4) and card and card.glyph in world.DIGITS and len(scene.clip_things) == 3 and 3 <= len(scene.beeps) <= 4):
            continue
        Image.fromarray(world.render_image(scene)).save(args.out / "scene.png", optimize=True)
        write_clip(args.out / "clip.mp4", world.render_clip(scene, world.STORED_FPS))
        soundfile.write(args.out / "beeps.wav", world.render_sound(scene), world.SAMPLE_RATE, subtype="PCM_16")
        image, video, audio = {"images": ["scene.png"]}, {"video": "clip.mp4"}, {"audio": "beeps.wav"}
        demo: list[dict] = []

        def take(files: dict, found: list[world.Question], most: int) -> None:
            taken: set[str] = set()
            for q in found:
                entry = {**files, "question": q.text, "expected": q.answer}
                if q.kind not in taken and len(taken) < most and right(entry):
                    taken.add(q.kind)
                    demo.append(entry)

        rng = random.Random(seed)
        take(image, [q for q in world.image_questions(scene, rng) if q.kind in ("read", "count", "what-at", "where")], 4)
        take(video, [q for q in world.clip_questions(scene, rng) if q.kind in ("direction", "moving")], 2)
        take(audio, [q for q in world.sound_questions(scene, rng) if q.kind in ("beeps", "order")], 2)
        take(image | audio, [q for q in world.joint_questions(scene, rng) if q.kind in ("digit-plus-beeps", "more")], 2)
        take({}, [q for q in world.text_questions(rng) if q.kind in ("sum", "opposite")], 2)
        short = len(demo)
        for files, text in ((image, world.describe_image(scene)), (video, world.describe_clip(scene)), (audio, world.describe_sound(scene))):
            if len(demo) == short:  # one description, of the richest item that it gets word for word
                take(files, [world.Question("Describe the scene.", text, "describe", list(files), True)], 1)
        if short >= 10 and len(demo) == short + 1:
            for entry in demo:
                if "images" in entry:
                    entry["image"] = entry.pop("images")[0]
            order = ("image", "video", "audio", "question", "expected")
            demo = [{k: e[k] for k in order if k in e} for e in demo]
            (args.out / "demo.json").write_text(json.dumps(demo, indent=2) + "\n")
            print(seed, len(demo), "questions")
            return
    raise SystemExit("no scene found that the target answers throughout")


if __name__ == "__main__":
    main()
