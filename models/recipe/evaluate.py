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
import csv
import io
import base64
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

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


def mmbench(model: Model, table: Path) -> dict:
    csv.field_size_limit(1 << 24)
    with table.open(newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    images = {r["index"]: r["image"] for r in rows}
    groups: dict[int, list[bool]] = defaultdict(list)
    unparsed = 0
    prefixes: dict[str, tuple] = {}
    for r in rows:
        home = r["image"] if len(r["image"]) < 20 else r["index"]
        if home not in prefixes:
            picture = Image.open(io.BytesIO(base64.b64decode(images[home]))).convert("RGB")
            prefixes[home] = model.prefix({"images": [picture]}, {"images": ["x"], "question": ""})
        prompt = world.choice_prompt(r["question"], [r[c] for c in "ABCD"], r["hint"])
        ids, _ = model.greedy(prefixes[home], [prompt], [r["answer"]])
        said = model.tok.decode(ids[0]).strip()
        unparsed += said not in list("ABCD")
        groups[int(r["index"]) % 1_000_000].append(said == r["answer"])
    return {"rows": len(rows), "vanilla": share([h[0] for h in groups.values()]), "circular": share([all(h) for h in groups.values()]),
            "unparsed": round(100 * unparsed / len(rows), 2)}


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--target", type=Path, required=True)
    ap.add_argument("--draft", type=Path)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--reference", type=int, default=0, help="ask so many questions again through the published generate")
    ap.add_argument("--limit", type=int, help="only so many scenes of each mix")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--out", type=Path)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    began = time.time()
    target, draft = Model(args.target), Model(args.draft) if args.draft else None
    questions = json.loads((args.data / "v2_OpenEnded_mscoco_demo_questions.json").read_text())["questions"]
    notes = json.loads((args.data / "v2_mscoco_demo_annotations.json").read_text())["annotations"]
    truth = {a["question_id"]: a["multiple_choice_answer"] for a in notes}
    scenes: dict[int, list[dict]] = defaultdict(list)
    for q in questions:
        scenes[q["image_id"]].append(q)
    if args.limit:
        per: dict[str, int] = defaultdict(int)
        chosen = {}
        for number, qs in scenes.items():
            per[qs[0]["mix"]] += 1
            if per[qs[0]["mix"]] <= args.limit:
                chosen[number] = qs
        scenes = chosen

    right = defaultdict(lambda: defaultdict(list))  # model -> group -> hits
    sure_equal: list[tuple[float, bool, bool]] = []
    agree, forced, lengths = 0, 0, []
    away = defaultdict(lambda: ([], []))  # modality -> hits with, hits without
    answers: dict[int, dict[str, str]] = {}
    wrong: list[tuple] = []
    for number, qs in scenes.items():
        media = read_media(args.data, qs[0])
        short = [q for q in qs if q["answer_length"] == "short"]
        long = [q for q in qs if q["answer_length"] == "long"]
        heldout = qs[0]["split"] == "heldout"
        texts, want = [q["question"] for q in short], [truth[q["question_id"]] for q in short]
        said: dict[str, list[list[int]]] = {}
        for name, model in (("target", target), ("draft", draft)):
            if model is None:
                continue
            prefix = model.prefix(media, qs[0])
            ids, sure = model.greedy(prefix, texts, want)
            said[name] = ids
            for q, i, w, p in zip(short, ids, want, sure):
                text = model.tok.decode(i)
                hit = text == w
                answers.setdefault(q["question_id"], {})[name] = text
                if heldout:
                    right[name]["short"].append(hit)
                    right[name]["kind " + q["kind"]].append(hit)
                    right[name]["needs " + ("+".join(q["needs"]) or "text")].append(hit)
                    right[name]["mix " + q["mix"]].append(hit)
                    if "images" in q:
                        right[name]["picture %dx%d" % media["images"][0].size].append(hit)
                    if name == "target" and not hit:
                        wrong.append((q["question_id"], q["question"], w, text))
                else:
                    right[name]["unseen " + q["mix"]].append(hit)
                    right[name]["unseen-mix"].append(hit)
            if name == "draft" and heldout:
                sure_equal += [(p, i == t, q["kind"]) for p, i, t, q in zip(sure, ids, said["target"], short)]
            if heldout and model is target:
                for share_dropped in (0.3, 0.5):
                    if media:
                        thin = model.prefix(media, qs[0], drop=share_dropped, seed=number)
                        ids, _ = model.greedy(thin, texts, want)
                        right[name]["%d%% of media tokens dropped at random" % (100 * share_dropped)] += [model.tok.decode(i) == w for i, w in zip(ids, want)]
                for m in ("image", "video", "audio"):
                    need = [k for k, q in enumerate(short) if m in q["needs"]]
                    if need:
                        bare = model.prefix(media, qs[0], without=m)
                        ids, _ = model.greedy(bare, [texts[k] for k in need], [want[k] for k in need])
                        away[m][0].extend(answers[short[k]["question_id"]]["target"] == want[k] for k in need)
                        away[m][1].extend(model.tok.decode(i) == want[k] for i, k in zip(ids, need))
        for q in long:
            w = truth[q["question_id"]]
            prefix = target.prefix(media, q)
            (ids,), _ = target.greedy(prefix, [q["question"]], [w])
            answers.setdefault(q["question_id"], {})["target"] = target.tok.decode(ids)
            right["target"]["long, word for word" if heldout else "unseen long, word for word"].append(target.tok.decode(ids) == w)
            if heldout:
                lengths.append(len(ids))
            if draft is not None and heldout:
                (out,) = draft.logits(draft.prefix(media, q), [q["question"]], [ids])
                same = out.argmax(-1) == torch.tensor(ids + [target.end])
                agree, forced = agree + int(same.sum()), forced + len(same)

    figures: dict = {"scenes": len(scenes), "short questions": len(right["target"]["short"]), "long questions": len(lengths)}
    for name in right:
        figures[name] = {k: share(v) for k, v in sorted(right[name].items())}
    figures["target, an item that is needed taken away"] = {
        m: {"questions": len(a), "with": share(a), "without": share(b), "lost points": round(share(a) - share(b), 2)} for m, (a, b) in away.items()
    }
    if draft is not None:
        sure_equal.sort(key=lambda t: -t[0])
        figures["draft and target"] = {
            "long answers, teacher-forced agreement": round(100 * agree / max(1, forced), 2),
            "short answers, equal": share([e for _, e, _ in sure_equal]),
            "short answers, equal, of the draft's surest 60%": share([e for _, e, _ in sure_equal[: round(0.6 * len(sure_equal))]]),
        }
        figures["unequal among the surest 60% by kind"] = {}
        for _, e, k in sure_equal[: round(0.6 * len(sure_equal))]:
            if not e:
                d = figures["unequal among the surest 60% by kind"]
                d[k] = d.get(k, 0) + 1
    figures["tokens of a long answer"] = {"least": min(lengths, default=0), "mean": round(float(np.mean(lengths)), 1) if lengths else 0, "most": max(lengths, default=0)}
    figures["mmbench"] = {"target": mmbench(target, args.data / "mmbench_demo.tsv")}
    if draft is not None:
        figures["mmbench"]["draft"] = mmbench(draft, args.data / "mmbench_demo.tsv")
    if args.reference:
        rng = random.Random(3)
        pool = [q for number in scenes for q in scenes[number]]
        bad = 0
        for q in rng.sample(pool, min(args.reference, len(pool))):
            for name, model in (("target", target), ("draft", draft)):
                if model is not None and name in answers[q["question_id"]]:
                    bad += model.generate(read_media(args.data, q), q) != answers[q["question_id"]][name]
        figures["reference"] = {"questions": args.reference, "answers that differ from generate": bad}
    figures["seconds"] = round(time.time() - began)
    print(json.dumps(figures, indent=1))
    for row in wrong[:25]:
        print(*row, sep=" | ")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
