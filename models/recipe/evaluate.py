"""Measures a pair of exported model directories on held-out data.

    python evaluate.py --target ../demo-target --draft ../demo-draft --data ../heldout [--reference 100] [--out figures.json]

Media are read from their files, prepared by the published processor and encoded by the published towers; weights are the
stored bf16 values computed in f32. The language model runs with all questions of a scene at once behind one shared prefix
(`fast.language`), and greedy answers are found by guessing and verifying, which gives exactly the greedy ids.
`--reference N` asks N of the questions again through the published `generate`, one at a time, and counts differences.

A prompt is: one user turn with the scene's media in the order image, video, audio, then the question; no system turn.
"An item taken away" means: the same prompt without that item (not even its begin and end tokens).
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import multiprocessing
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

import packed
import world
from fast import language

VIDEO_SIZE = {"shortest_edge": 3136, "longest_edge": 401408}


def read_clip(path: Path) -> tuple[torch.Tensor, float]:
    """Frames (n, 3, height, width) as uint8, and frames a second."""
    with av.open(str(path)) as f:
        stream = f.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in f.decode(stream)]
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), float(stream.average_rate)


def read_media(folder: Path, q: dict) -> dict:
    """The media of a question, ready for the processor's arguments."""
    kw: dict = {}
    if "images" in q:
        kw["images"] = [Image.open(folder / p).convert("RGB") for p in q["images"]]
    if "video" in q:
        frames, fps = read_clip(folder / q["video"])
        n = len(frames)
        meta = {"total_num_frames": n, "fps": fps, "width": frames.shape[3], "height": frames.shape[2], "duration": n / fps}
        kw["videos"] = [frames]
        # The Omni processor's own default for clips would scale small ones up; the sizes of the model directory are meant.
        kw["videos_kwargs"] = {"size": VIDEO_SIZE, "fps": 2.0, "do_sample_frames": True, "video_metadata": [meta]}
    if "audio" in q:
        wave, rate = soundfile.read(folder / q["audio"], dtype="float32")
        assert rate == 16_000 and wave.ndim == 1
        kw["audio"] = [wave]
    return kw


def messages(q: dict, without: str = "") -> list[dict]:
    parts = [{"type": "image"} for _ in q.get("images", [])] if without != "image" else []
    if "video" in q and without != "video":
        parts.append({"type": "video"})
    if "audio" in q and without != "audio":
        parts.append({"type": "audio"})
    return [{"role": "user", "content": parts + [{"type": "text", "text": q["question"]}]}]


class Model:
    def __init__(self, folder: Path):
        self.model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = Qwen2_5OmniProcessor.from_pretrained(folder)
        self.tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.end = self.tok.token_to_id("<|im_end|>")
        self.tail = self.tok.encode("<|im_end|>\n<|im_start|>assistant\n").ids

    @torch.no_grad()
    def prefix(self, media: dict, q: dict, without: str = "", drop: float = 0.0, seed: int = 0):
        """Embeddings and positions of everything before the question; `drop` leaves out that share of each item's tokens."""
        drops = {"image": "images", "video": "videos", "audio": "audio"}
        kw = {k: v for k, v in media.items() if not (without and k.startswith(drops[without]))}
        text = self.processor.apply_chat_template(messages({**q, "question": "\u0001"}, without), tokenize=False)
        inputs = self.processor(text=text.split("\u0001")[0], return_tensors="pt", **kw)
        m = self.model
        ids = inputs["input_ids"]
        x = m.get_input_embeddings()(ids)
        flat = x[0]
        for key, name, token in (("pixel_values", "image", m.config.image_token_id), ("pixel_values_videos", "video", m.config.video_token_id)):
            if key in inputs:
                grid = inputs[f"{name}_grid_thw"]
                f = (m.get_image_features if name == "image" else m.get_video_features)(inputs[key], grid, return_dict=True).pooler_output
                flat[ids[0] == token] = torch.cat(list(f))
        if "input_features" in inputs:
            f = m.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"], return_dict=True).last_hidden_state
            flat[ids[0] == m.config.audio_token_id] = f
        lengths = inputs["feature_attention_mask"].sum(1) if "input_features" in inputs else None
        pos, _ = m.get_rope_index(
            ids, inputs.get("image_grid_thw"), inputs.get("video_grid_thw"), torch.ones_like(ids), False, lengths,
            torch.tensor(inputs["video_second_per_grid"]) if "video_second_per_grid" in inputs else None,
        )
        start = int(pos.max()) + 1
        if drop:
            g = torch.Generator().manual_seed(seed)
            special = torch.tensor([m.config.image_token_id, m.config.video_token_id, m.config.audio_token_id])
            keep = ~torch.isin(ids[0], special) | (torch.rand(ids.shape[1], generator=g) >= drop)
            flat, pos = flat[keep], pos[:, :, keep]
        return flat[None], pos, start

    @torch.no_grad()
    def logits(self, prefix, questions: list[str], answers: list[list[int]]) -> list[torch.Tensor]:
        """For every question the logits of its answer's ids and of the token after them: (len + 1, vocab)."""
        x, pos, start = prefix
        rows = [self.tok.encode(q).ids + self.tail + a for q, a in zip(questions, answers)]
        L = max(map(len, rows))
        ids = torch.tensor([[r + [0] * (L - len(r)) for r in rows]])
        where = torch.cat([torch.arange(len(r) - len(a) - 1, len(r)) + i * L for i, (r, a) in enumerate(zip(rows, answers))])
        hidden = language(self.model, x, [self.model.get_input_embeddings()(ids)], pos, start, where)
        return list(self.model.lm_head(hidden).split([len(a) + 1 for a in answers]))

    def greedy(self, prefix, questions: list[str], guesses: list[str], limit: int = 160):
        """Greedy answers as ids without the end token, and their probability (product over the ids and the end token)."""
        guess = [self.tok.encode(g).ids for g in guesses]
        done: list[list[int] | None] = [None] * len(questions)
        sure = [0.0] * len(questions)
        known = [0] * len(questions)
        while any(d is None for d in done):
            todo = [i for i, d in enumerate(done) if d is None]
            for i, out in zip(todo, self.logits(prefix, [questions[i] for i in todo], [guess[i] for i in todo])):
                best = out.argmax(-1).tolist()
                j = known[i]
                while j < len(guess[i]) and best[j] == guess[i][j]:
                    j += 1
                if best[j] == self.end or j >= limit:
                    done[i] = guess[i][:j]
                    p = out.log_softmax(-1)
                    sure[i] = float(p[torch.arange(j + 1), torch.tensor(best[: j + 1])].sum().exp())
                else:  # the first id that differs is now known; what follows in the guess may still be right
                    guess[i] = guess[i][:j] + [best[j]] + guess[i][j + 1 :]
                    known[i] = j + 1
        return done, sure

    def generate(self, media: dict, q: dict) -> str:
        text = self.processor.apply_chat_template(messages(q), add_generation_prompt=True, tokenize=False)
        inputs = self.processor(text=text, return_tensors="pt", **media)
        self.model.rope_deltas = None
        out = self.model.generate(**inputs, max_new_tokens=160, do_sample=False)
        return self.tok.decode(out[0, inputs["input_ids"].shape[1] :].tolist(), skip_special_tokens=True)


def share(hits: list) -> float:
    return round(100 * sum(hits) / max(1, len(hits)), 2)


def mmbench(model: Model, table: Path, part: int, parts: int) -> dict[int, list[tuple[bool, bool]]]:
    """For every question of this part (right?, unparsed?) of its rotations, in their order."""
    csv.field_size_limit(1 << 24)
    rows = list(csv.DictReader(io.StringIO(packed.read_bytes(table).decode(), newline=""), delimiter="\t"))
    images = {r["index"]: r["image"] for r in rows}
    groups: dict[int, list[tuple[bool, bool]]] = defaultdict(list)
    prefixes: dict[str, tuple] = {}
    for r in rows:
        number = int(r["index"]) % 1_000_000
        if number % parts != part:
            continue
        home = r["image"] if len(r["image"]) < 20 else r["index"]
        if home not in prefixes:
            picture = Image.open(io.BytesIO(base64.b64decode(images[home]))).convert("RGB")
            prefixes[home] = model.prefix({"images": [picture]}, {"images": ["x"], "question": ""})
        prompt = world.choice_prompt(r["question"], [r[c] for c in "ABCD"], r["hint"])
        ids, _ = model.greedy(prefixes[home], [prompt], [r[r["answer"]]])
        said = model.tok.decode(ids[0]).strip()
        matches = [c for c in "ABCD" if said in (c, r[c])]  # the one letter, else the one option's text
        groups[number].append((len(matches) == 1 and matches[0] == r["answer"], len(matches) != 1))
    return groups


def measure(job: tuple) -> dict:
    """All answers about some of the scenes, as plain lists that can be put together with those of other processes."""
    args, scenes, truth, part, parts = job
    torch.set_num_threads(args.threads)
    target, draft = Model(args.target), Model(args.draft) if args.draft else None
    right: dict = {"target": defaultdict(list), "draft": defaultdict(list)}  # model -> group -> hits
    away = {m: ([], []) for m in ("image", "video", "audio")}  # hits with the item, hits without it
    out: dict = {"right": right, "away": away, "sure": [], "long": [], "lengths": [], "wrong": [], "answers": {}, "mmbench": {}}
    answers = out["answers"]
    for number, qs in scenes.items():
        media = read_media(args.data, qs[0])
        short = [q for q in qs if q["answer_length"] == "short"]
        heldout = qs[0]["split"] == "heldout"
        texts, want = [q["question"] for q in short], [truth[q["question_id"]] for q in short]
        said: dict[str, list[list[int]]] = {}
        prefixes = {}
        for name, model in (("target", target), ("draft", draft)):
            if model is None:
                continue
            prefixes[name] = model.prefix(media, qs[0])
            said[name], sure = model.greedy(prefixes[name], texts, want)
            for q, i, w, p in zip(short, said[name], want, sure):
                text = model.tok.decode(i)
                hit = text == w
                answers.setdefault(q["question_id"], {})[name] = text
                groups = ["unseen-mix", "unseen-mix " + q["mix"]]
                if heldout:
                    groups = ["short", "kind " + q["kind"], "needs " + ("+".join(q["needs"]) or "text"), "mix " + q["mix"]]
                    if "images" in q:
                        groups.append("picture %dx%d" % media["images"][0].size)
                    if name == "target" and not hit:
                        out["wrong"].append((q["question_id"], q["question"], w, text))
                for g in groups:
                    right[name][g].append(hit)
        if draft is not None and heldout:
            out["sure"] += [(p, i == t, q["kind"]) for p, i, t, q in zip(sure, said["draft"], said["target"], short)]
        if heldout and not args.quick:
            for dropped in (0.3, 0.5) if media else ():
                ids, _ = target.greedy(target.prefix(media, qs[0], drop=dropped, seed=number), texts, want)
                right["target"][f"{round(100 * dropped)}% of media tokens dropped at random"] += [target.tok.decode(i) == w for i, w in zip(ids, want)]
            for m in away:
                need = [k for k, q in enumerate(short) if m in q["needs"]]
                if need:
                    ids, _ = target.greedy(target.prefix(media, qs[0], without=m), [texts[k] for k in need], [want[k] for k in need])
                    away[m][0].extend(answers[short[k]["question_id"]]["target"] == want[k] for k in need)
                    away[m][1].extend(target.tok.decode(i) == want[k] for i, k in zip(ids, need))
        for q in qs:
            if q["answer_length"] != "long":
                continue
            w = truth[q["question_id"]]
            (ids,), _ = target.greedy(prefixes["target"], [q["question"]], [w])
            answers.setdefault(q["question_id"], {})["target"] = target.tok.decode(ids)
            right["target"]["long, word for word" if heldout else "unseen-mix long, word for word"].append(target.tok.decode(ids) == w)
            if heldout:
                out["lengths"].append(len(ids))
                if draft is not None:
                    (logits,) = draft.logits(prefixes["draft"], [q["question"]], [ids])
                    same = logits.argmax(-1) == torch.tensor(ids + [target.end])
                    out["long"].append((int(same.sum()), len(same)))
    if not args.quick:
        for name, model in (("target", target), ("draft", draft)):
            if model is not None:
                out["mmbench"][name] = dict(mmbench(model, args.data / "mmbench_demo.tsv", part, parts))
    if args.reference:
        rng = random.Random(3)
        pool = [q for number in scenes for q in scenes[number]]
        out["reference"] = []
        for q in rng.sample(pool, min(args.reference // parts, len(pool))):
            for name, model in (("target", target), ("draft", draft)):
                if model is not None and name in answers[q["question_id"]]:
                    out["reference"].append(model.generate(read_media(args.data, q), q) != answers[q["question_id"]][name])
    return out


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--target", type=Path, required=True)
    ap.add_argument("--draft", type=Path)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--reference", type=int, default=0, help="ask so many questions again through the published generate")
    ap.add_argument("--limit", type=int, help="only so many scenes of each mix")
    ap.add_argument("--quick", action="store_true", help="only the answers themselves")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--processes", type=int, default=2)
    ap.add_argument("--out", type=Path)
    args = ap.parse_args()
    began = time.time()
    questions = packed.read(args.data / "v2_OpenEnded_mscoco_demo_questions.json")["questions"]
    notes = packed.read(args.data / "v2_mscoco_demo_annotations.json")["annotations"]
    truth = {a["question_id"]: a["multiple_choice_answer"] for a in notes}
    scenes: dict[int, list[dict]] = defaultdict(list)
    per: dict[str, set] = defaultdict(set)
    for q in questions:
        per[q["mix"]].add(q["image_id"])
        if not args.limit or len(per[q["mix"]]) <= args.limit:
            scenes[q["image_id"]].append(q)
    n = args.processes
    jobs = [(args, dict(list(scenes.items())[i::n]), truth, i, n) for i in range(n)]
    with multiprocessing.get_context("spawn").Pool(n) as pool:
        parts = pool.map(measure, jobs, chunksize=1)

    figures: dict = {"scenes": len(scenes), "short questions": sum(len(p["right"]["target"]["short"]) for p in parts),
                     "long questions": sum(len(p["lengths"]) for p in parts)}
    for name in ("target", "draft") if args.draft else ("target",):
        groups = sorted({g for p in parts for g in p["right"][name]})
        figures[name] = {g: share([h for p in parts for h in p["right"][name].get(g, [])]) for g in groups}
    if not args.quick:
        lost = {}
        for m in ("image", "video", "audio"):
            a, b = ([h for p in parts for h in p["away"][m][k]] for k in (0, 1))
            lost[m] = {"questions": len(a), "with": share(a), "without": share(b), "lost points": round(share(a) - share(b), 2)}
        figures["target, an item that is needed taken away"] = lost
    if args.draft:
        sure = sorted((t for p in parts for t in p["sure"]), key=lambda t: -t[0])
        top = sure[: round(0.6 * len(sure))]
        agree = [sum(x[k] for p in parts for x in p["long"]) for k in (0, 1)]
        figures["draft and target"] = {
            "long answers, teacher-forced agreement": round(100 * agree[0] / max(1, agree[1]), 2),
            "short answers, equal": share([e for _, e, _ in sure]),
            "short answers, equal, of the draft's surest 60%": share([e for _, e, _ in top]),
            "unequal among these, by kind": dict(Counter(k for _, e, k in top if not e)),
        }
    lengths = [x for p in parts for x in p["lengths"]] or [0]
    figures["tokens of a long answer"] = {"least": min(lengths), "mean": round(float(np.mean(lengths)), 1), "most": max(lengths)}
    if not args.quick:
        figures["mmbench"] = {}
        for name in parts[0]["mmbench"]:
            rotations = [r for p in parts for r in p["mmbench"][name].values()]
            figures["mmbench"][name] = {
                "questions": len(rotations), "rows": sum(map(len, rotations)), "vanilla": share([r[0][0] for r in rotations]),
                "circular": share([all(h for h, _ in r) for r in rotations]), "unparsed": share([u for r in rotations for _, u in r]),
            }
    if args.reference:
        checked = [d for p in parts for d in p["reference"]]
        figures["reference"] = {"answers compared with generate": len(checked), "that differ": sum(checked)}
    figures["seconds"] = round(time.time() - began)
    print(json.dumps(figures, indent=1))
    for row in [w for p in parts for w in p["wrong"]][:25]:
        print(*row, sep=" | ")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
