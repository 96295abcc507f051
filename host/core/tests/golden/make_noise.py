#!/usr/bin/env python3
"""Makes noise.json: the sampler's noise and whole picks, from an implementation that shares nothing with the crate.

Plain Python 3, no packages:

    python3 make_noise.py > noise.json

Philox4x32-10 as in Salmon et al., SC 2011 (Random123); the noise as the documentation of
`msao_core::sampling::Noise` defines it, with -ln u computed from exact fractions in 60 decimal digits.
"""

import json
import sys
from decimal import Decimal, getcontext

getcontext().prec = 60
MASK = 0xFFFFFFFF


def philox4x32_10(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def words(seed, choice, index, token):
    return philox4x32_10([choice, index, token, 0], [seed & MASK, seed >> 32])


def bits53(w):
    return (w[0] | w[1] << 32) >> 11


def gumbel(k):
    u = (Decimal(k) + Decimal("0.5")) / Decimal(2**53)
    return -(-u.ln()).ln()


def pick(seed, choice, index, temperature, logits):
    """argmax(log p + g); the constant of log p does not matter to argmax."""
    scores = [
        Decimal(logit) / Decimal(temperature) + gumbel(bits53(words(seed, choice, index, token)))
        for token, logit in enumerate(logits)
    ]
    return max(range(len(scores)), key=lambda token: (scores[token], -token))


def main():
    for counter, key, expected in (
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ):
        assert philox4x32_10(counter, key) == expected

    seeds = [0, 1, 7, 0xFFFFFFFF, 1 << 32, 0x0123456789ABCDEF, 2**64 - 1]
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2, 17, 151643), (3, 4095, 152063), (MASK, MASK, MASK)]
    noise = []
    for seed in seeds:
        for choice, index, token in places:
            w = words(seed, choice, index, token)
            noise.append(
                {
                    "seed": str(seed),
                    "choice": choice,
                    "output_index": index,
                    "id": token,
                    "words": w,
                    "bits": str(bits53(w)),
                    "gumbel": float(gumbel(bits53(w))),
                }
            )

    # Exact in f32, so that every reader has the same logits.
    logits = [((token * 37) % 64) / 16 - 2 for token in range(64)]
    picks = [
        {
            "seed": str(seed),
            "choice": choice,
            "temperature": temperature,
            "ids": [pick(seed, choice, index, temperature, logits) for index in range(48)],
        }
        for seed, choice, temperature in ((0, 0, 1.0), (0, 1, 1.0), (42, 0, 0.5), (2**64 - 1, 3, 2.0))
    ]
    golden = {"made_by": "make_noise.py", "noise": noise, "logits": logits, "picks": picks}
    json.dump(golden, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
