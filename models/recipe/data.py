"""Writes held-out data: VQAv2 questions and annotations with their media, and an MMBench table.

    python data.py OUT_DIR [--scale 1.0] [--first 30001] [--seen]
    python data.py OUT_DIR --apart 20000 --first 200001

Scenes have seeds from 30,001 up, training scenes lie above 1,000,000,000: nothing is in both. `--scale 10` makes ten times
as much, `--first` starts at another scene. A third of the pictures are 448x448 (256 visual tokens). Some mixes of modalities
never occur in training; their questions have split "unseen-mix". `--seen` leaves these out (what is to be calibrated
with must not have seen them either), the table, and all but one of VQAv2's ten equal answers.

`--apart N` writes N questions and a few to spare, each about a picture, a clip or a sound of its own, or about none: what depends
on nothing else tells most about accuracy. They are a quarter each about these, 60% short and 40% long, and otherwise as above. It
says how far it is, takes no table with it, and goes on where an earlier one was interrupted: a medium that is there is whole.

It needs the packages of requirements-data.txt alone.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

import packed
import world

# mix -> (scenes, short questions a scene, share of scenes that are described)
PLAN = {
    ("image",): (118, 8, 0.49),
    ("image", "audio"): (50, 11, 0.72),
    ("audio",): (30, 4, 0.75),
    ("video",): (42, 5, 0.8),
    (): (26, 7, 0.0),
    ("image", "video"): (16, 6, 0.2),
    ("video", "audio"): (12, 5, 0.2),
    ("image", "video", "audio"): (8, 6, 0.2),
}
SEEN = {("image",), ("image", "audio"), ("audio",), ("video",), ()}
CHOICE_SCENES = 26  # pictures in the MMBench table

Plan = dict[tuple[str, ...], tuple[int, int, float]]
APART = [("image",), ("video",), ("audio",), ()]  # a quarter of the questions each
SPARE = 15  # scenes of each: whoever draws a quarter of some number exactly finds enough
TOLD_EVERY = 5.0  # seconds


def apart_plan(questions: int) -> Plan:
    """As PLAN, with one question a scene: 40% of all are long, so 8 of 15 of those about media."""
    scenes = -(-questions // 4) + SPARE
    return {media: (scenes, PLAN[media][1], 8 / 15 if media else 0.0) for media in APART}


def once(path: Path, write: Callable[[Path], None]) -> None:
    """Has a file made, unless it is there; under its own name it is there whole or not at all."""
    if path.exists():
        return
    part = path.with_name("part-" + path.name)
    write(part)
    part.replace(path)


def write_clip(path: Path, frames: np.ndarray) -> None:
    """H.264 in MP4, yuv420p, STORED_FPS frames a second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=world.STORED_FPS, options={"crf": "27", "preset": "slow", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def write_sound(path: Path, wave: np.ndarray) -> None:
    """PCM of 10 bits in 16 (FLAC stores the six empty bits for nothing), or MP3, by the name's ending."""
    if path.suffix == ".mp3":
        soundfile.write(path, wave, world.SAMPLE_RATE, format="MP3")
    else:
        pcm = np.clip(np.round(wave * 511), -511, 511).astype(np.int16) * 64
        soundfile.write(path, pcm, world.SAMPLE_RATE, subtype="PCM_16")


def vqa(out: Path, plan: Plan, first: int, seen: bool, apart: bool) -> list[world.Scene]:
    questions, annotations, scenes = [], [], []
    number = first
    for folder in ("images", "clips", "sounds"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    make = once if apart else lambda path, write: write(path)
    pictures, told = 0, time.monotonic()
    every = sum(count for count, _, _ in plan.values())
    for media, (count, many, described) in plan.items():
        only_described = set(random.Random(number * 77 + 9).sample(range(count), round(count * described))) if apart else ()
        for i in range(count):
            if apart and time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                print(f"  {len(scenes)} of {every} scenes", file=sys.stderr, flush=True)
            rng = random.Random(number * 77 + 5)
            size = (112, 112)
            if "image" in media:
                size = (448, 448) if pictures % 3 == 0 else world.SIZES[pictures * 7 // 3 % 5]
                pictures += 1
            scene = world.make_scene(number, media, size, rng.choice([2.0, 3.0, 4.0]), rng.choice([1.0, 1.2, 1.4, 1.6, 1.8, 2.0]))
            scenes.append(scene)
            files: dict = {}
            if "image" in media:
                name = f"images/COCO_demo_{number:012d}.jpg"
                make(out / name, lambda path: Image.fromarray(world.render_image(scene)).save(path, quality=64))
                files["images"] = [name]
            if "video" in media:
                name = f"clips/demo_{number:012d}.mp4"
                make(out / name, lambda path: write_clip(path, world.render_clip(scene, world.STORED_FPS)))
                files["video"] = name
            if "audio" in media:
                ending = "wav" if i == 26 and len(media) == 1 else "mp3" if i % 2 else "flac"
                name = f"sounds/demo_{number:012d}.{ending}"
                make(out / name, lambda path: write_sound(path, world.render_sound(scene)))
                files["audio"] = name
            pool = world.questions(scene, rng)
            text_only = world.text_questions(rng)
            if media:
                chosen = rng.sample(pool, min(many, len(pool)))
                if rng.random() < 0.35:
                    chosen.append(rng.choice(text_only))
            else:
                chosen = text_only + world.text_questions(rng)[: many - len(text_only)]
            if apart:
                chosen = world.long_questions(scene, rng) if i in only_described else [rng.choice(chosen)]
            elif rng.random() < described:
                chosen += world.long_questions(scene, rng)
            seen_texts: set[str] = set()
            for q in chosen:
                if q.text in seen_texts:
                    continue
                seen_texts.add(q.text)
                qid = number * 1000 + len(seen_texts) - 1
                questions.append(
                    {"image_id": number, "question": q.text, "question_id": qid, **files, "needs": q.needs, "kind": q.kind,
                     "answer_length": "long" if q.long else "short", "mix": "+".join(media) or "text",
                     "split": "heldout" if media in SEEN else "unseen-mix"}
                )
                answer_type = "yes/no" if q.answer in ("yes", "no") else "number" if q.answer.isdigit() else "other"
                annotations.append(
                    {"question_id": qid, "image_id": number, "question_type": q.kind, "answer_type": answer_type,
                     "multiple_choice_answer": q.answer,
                     "answers": [{"answer": q.answer, "answer_confidence": "yes", "answer_id": k + 1} for k in range(1 if seen else 10)]}
                )
            number += 1
    info = {"description": "Synthetic scenes with pictures, clips and sounds", "version": "1", "year": 2026}
    license_ = {"name": "MIT OR Apache-2.0"}
    shared = {"info": info, "license": license_, "data_type": "demo", "data_subtype": "demo"}
    packed.write(out / "v2_OpenEnded_mscoco_demo_questions.json", {**shared, "task_type": "Open-Ended", "questions": questions})
    packed.write(out / "v2_mscoco_demo_annotations.json", {**shared, "annotations": annotations})
    return scenes


def mmbench(out: Path, scenes: list[world.Scene], scale: float) -> None:
    """Multiple choice about pictures: every question in four rotations, index + 1,000,000 * rotation."""
    pictured = [s for s in scenes if s.media == ["image"]]
    pictured = pictured[: round(CHOICE_SCENES * scale)]
    rows, index = [], 1
    for scene in pictured:
        rng = random.Random(scene.seed * 99 + 1)
        found = [q for q in world.image_questions(scene, rng) if len(q.choices) >= 3]
        encoded = base64.b64encode((out / f"images/COCO_demo_{scene.seed:012d}.jpg").read_bytes()).decode()
        home = None
        for q in rng.sample(found, min(3, len(found))):
            options = [q.answer] + q.choices[:3]
            rng.shuffle(options)
            for turn in range(4):
                turned = options[turn:] + options[:turn]
                row = index + 1_000_000 * turn
                if home is None:
                    image, home = encoded, row
                else:
                    image = str(home)  # the picture is that of an earlier row
                rows.append([row, q.text, "", *turned, "ABCD"[turned.index(q.answer)], q.kind, image, "demo", "perception", "dev"])
            index += 1
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category", "split"])
    writer.writerows(rows)
    packed.write_bytes(out / "mmbench_demo.tsv", table.getvalue().encode())


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("out", type=Path)
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--first", type=int, default=30_001)
    ap.add_argument("--seen", action="store_true", help="only mixes that occur in training, and no MMBench table")
    ap.add_argument("--apart", type=int, metavar="N", help="N questions, each about a medium of its own or none, and no MMBench table")
    args = ap.parse_args()
    if args.apart is None:
        plan = {m: (round(n * args.scale), q, d) for m, (n, q, d) in PLAN.items() if m in SEEN or not args.seen}
    else:
        if args.apart < 1 or args.seen or args.scale != 1.0:
            ap.error("--apart takes a number from 1 on, and goes with neither --seen nor --scale")
        plan = apart_plan(args.apart)
    scenes = vqa(args.out, plan, args.first, args.seen, args.apart is not None)
    if not args.seen and args.apart is None:
        mmbench(args.out, scenes, args.scale)
    loaded = packed.read(args.out / "v2_OpenEnded_mscoco_demo_questions.json")["questions"]
    total = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print(len(scenes), "scenes", sum(q["answer_length"] == "short" for q in loaded), "short questions",
          sum(q["answer_length"] == "long" for q in loaded), "long ones", total, "bytes")


if __name__ == "__main__":
    main()
