"""Golden values of VQAv2's soft accuracy, from the official code itself.

    python make_vqa.py path/to/VQA/PythonEvaluationTools | zstd -19 > vqa.json.zst

The checkout is https://github.com/GT-Vision-Lab/VQA at commit c4e6a0e. Texts are made of what its rules look for; the answers are
near misses of the prediction.
"""

import json
import random
import sys
import warnings

warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
try:
    from vqaEvaluation.vqaEval import VQAEval
except ImportError:
    from vqaEval import VQAEval

PIECES = [
    "a", "an", "The", "two", "NONE", "ten", "dont", "don't", "Im", "somebody'd", "hed've", "let's", "oclock", "red", "Cat", "É", "ß",
    "3", "10", "1,000", "2.5", ".5", "5.", "...", ".", ",", ", ", "-", " -", "?", "!", "/", "'", ":", ";", "(", ")", "\"", "\\", "_",
    "@", "<", ">", "{", "]", "`", "=", "+", "&", "%", "\t", "\n", "\r", "\x1f", "\u00a0", "\u2003", " ", " ", " ", " ", " ",
]


class Questions:
    def __init__(self, qa):
        self.qa = qa

    def getQuesIds(self):
        return list(self.qa)


def text(rng):
    return "".join(rng.choice(PIECES) + rng.choice(["", " "]) for _ in range(rng.randint(1, 6)))


def accuracy(prediction, answers):
    people = [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(answers)]
    annotation = {"answers": people, "question_type": "what", "answer_type": "other"}
    official = VQAEval(Questions({1: annotation}), Questions({1: {"answer": prediction}}), n=12)
    official.evaluate()
    return official.accuracy["overall"] / 100


def normalise(prediction):
    official = VQAEval(Questions({}), None)
    spaced = prediction.replace("\n", " ").replace("\t", " ").strip()
    return official.processDigitArticle(official.processPunctuation(spaced))


def main():
    rng = random.Random(7)
    cases = []
    while len(cases) < 300:
        prediction = text(rng)
        if len(cases) == 0:
            prediction = "a." * 40
        normal = normalise(prediction)
        pool = [normal, normal, prediction, normal + ".", normal.replace(" ", "-"), normal.upper(), text(rng)]
        few = rng.sample(pool, rng.randint(1, 3))
        answers = [rng.choice(few) for _ in range(10)]
        cases.append({"prediction": prediction, "answers": answers, "normal": normal, "accuracy": accuracy(prediction, answers)})
    print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")


main()
