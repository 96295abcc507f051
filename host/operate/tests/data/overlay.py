"""Writes overlay.png: what `msao explain --overlay` has to draw of the media in host/operate/src/overlay/draw/tests.rs.

It says in its own words what draw.rs says: the picture is made twice, and the test holds one against the other.
Standard library alone: python overlay.py
"""

import pathlib
import struct
import zlib

BLUE, ORANGE, WHITE, UNSEEN, WAVE = (66, 133, 244), (244, 160, 0), (255,) * 3, (208,) * 3, (32,) * 3


def plain(width, height, colour):
    return [[colour] * width for _ in range(height)]


def paste(onto, canvas, x, y):
    for row, line in enumerate(canvas):
        onto[y + row][x : x + len(line)] = line


def run(at, places, all):
    first = at * all // places
    return range(first, max((at + 1) * all // places, first + 1))


def scaled(image, width, height):
    """Means of the pixels that each pixel covers."""

    def mean(y, x):
        there = [image[i][j] for i in run(y, height, len(image)) for j in run(x, width, len(image[0]))]
        return tuple(sum(pixel[k] for pixel in there) // len(there) for k in range(3))

    return [[mean(y, x) for x in range(width)] for y in range(height)]


def dim(pixel):
    red, green, blue = pixel
    return (24 + ((77 * red + 150 * green + 29 * blue) >> 8) // 4,) * 3


def framed(canvas, by, colour):
    around = plain(len(canvas[0]) + 2 * by, len(canvas) + 2 * by, colour)
    paste(around, canvas, by, by)
    return around


def still(image, rows, columns, cell, kept, first=0):
    width, height = columns * cell, rows * cell
    canvas = scaled(image, width, height) if image else plain(width, height, UNSEEN)
    for y in range(height):
        for x in range(width):
            if first + y // cell * columns + x // cell not in kept:
                canvas[y][x] = dim(canvas[y][x])
    return canvas


def dim_columns(canvas, all, kept):
    for x in range(len(canvas[0])):
        if not any(thing in kept for thing in run(x, len(canvas[0]), all)):
            for line in canvas:
                line[x] = dim(line[x])


def clip(images, frames, rows, columns, cell, kept):
    shown = [f for f in range(frames) if any(t // (rows * columns) == f for t in kept)]
    wide, high = columns * cell, rows * cell
    across = max(1, min(8, len(shown)))
    lines = -(-len(shown) // 8)
    canvas = plain(max(160, across * (wide + 2) - 2), lines * (high + 2) + 6, WHITE)
    for place, f in enumerate(shown):
        one = still(images.get(f), rows, columns, cell, kept, f * rows * columns)
        paste(canvas, one, place % 8 * (wide + 2), place // 8 * (high + 2))
    bar = plain(len(canvas[0]), 6, UNSEEN)
    dim_columns(bar, frames, shown)
    paste(canvas, bar, 0, lines * (high + 2))
    return canvas


def sound(samples, tokens, kept):
    canvas = plain(640, 64, UNSEEN)

    def row(sample):
        up = abs(sample) * 31
        return 32 - (1 if sample >= 0 else -1) * int(up + 0.5)

    for x in range(640):
        heard = [samples[i] for i in run(x, 640, len(samples))]
        for y in range(row(max(heard)), row(min(heard)) + 1):
            canvas[y][x] = WAVE
    dim_columns(canvas, tokens, kept)
    return canvas


def beside(panels):
    canvas = plain(sum(len(p[0]) for p in panels) + 8 * (len(panels) - 1), max(map(len, panels)), WHITE)
    x = 0
    for panel in panels:
        paste(canvas, panel, x, 0)
        x += len(panel[0]) + 8
    return canvas


def below(rows):
    canvas = plain(max(len(r[0]) for r in rows), sum(map(len, rows)) + 8 * (len(rows) - 1), WHITE)
    y = 0
    for row in rows:
        paste(canvas, row, 0, y)
        y += len(row) + 8
    return canvas


def png(canvas):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    lines = b"".join(b"\0" + bytes(value for pixel in line for value in pixel) for line in canvas)
    head = struct.pack(">IIBBBBB", len(canvas[0]), len(canvas), 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    )


def main():
    image = [[(20 * x, 30 * y, 10 * (x + y)) for x in range(12)] for y in range(8)]
    flat = lambda *colours: [list(colours)]
    frames = {0: flat((200, 0, 0), (0, 200, 0)), 1: flat((0, 0, 200), (90, 90, 90)), 2: flat((250, 250, 0), (0, 250, 250))}
    samples = [((i * i) % 65 - 32) / 32 for i in range(2000)]
    draft, target = (lambda canvas: framed(canvas, 3, BLUE)), (lambda canvas: framed(canvas, 3, ORANGE))
    rows = [
        beside([draft(still(image, 2, 3, 28, {0, 4})), target(still(image, 2, 3, 28, {1, 2, 3, 5}))]),
        beside([draft(clip(frames, 3, 1, 2, 28, {0, 5})), target(clip(frames, 3, 1, 2, 28, set(range(6))))]),
        target(sound(samples, 5, {1, 3})),
        draft(still(None, 1, 2, 28, {1})),
    ]
    out = pathlib.Path(__file__).with_name("overlay.png")
    out.write_bytes(png(framed(below(rows), 8, WHITE)))


main()
