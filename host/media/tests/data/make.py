"""Small files of the awkward kinds, with what Pillow and ffmpeg read from them.

    pip install numpy pillow safetensors soundfile imageio-ffmpeg zstandard
    python make.py          # writes beside itself; the tests need no Python

`expected.safetensors`, packed by zstd, holds for each FILE either `FILE` u8 [H, W, 3] (a picture), `FILE.clip` u8 [T, H, W, 3],
`FILE.yuv` u8 [T, 3H/2, W] (planes Y, U, V) or `FILE.samples` f32 [n].
"""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
import zstandard
from PIL import Image, ImageOps, ImageSequence
from safetensors.numpy import save

HERE = Path(__file__).parent
W, H = 40, 28
expected = {}


def scene(width, height, t=0.0):
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    rgb = np.stack([255 * x / width, 128 + 120 * np.sin(y / 5 + t), 255 * ((x + y + 7 * t) % 32) / 32], axis=-1)
    cx, cy = width * (0.5 + 0.3 * np.cos(t)), height * (0.5 + 0.3 * np.sin(t))
    rgb[(x - cx) ** 2 + (y - cy) ** 2 < (height / 5) ** 2] = [250, 40, 30]
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def picture(name, image, **options):
    image.save(HERE / name, **options)
    with Image.open(HERE / name) as read:
        expected[name] = np.array(ImageOps.exif_transpose(read).convert("RGB"))


def pictures():
    rgb = scene(W, H)
    grey = Image.fromarray(rgb).convert("L")
    picture("gray16.png", Image.fromarray((rgb[..., 0].astype(np.uint16) * 3)))
    picture("gray1.png", grey.convert("1"))
    small = Image.fromarray((rgb[..., 0] // 64).astype(np.uint8), "P")
    small.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 20, 30, 255])
    picture("palette2_transparent.png", small, bits=2, transparency=1)
    interlaced_rgb16(rgb)
    picture("cmyk.jpg", Image.fromarray(rgb).convert("CMYK"), quality=95)
    picture("restart_422.jpg", Image.fromarray(rgb), quality=90, subsampling=1, restart_marker_blocks=3)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture(f"turned{orientation}.jpg", Image.fromarray(rgb), quality=90, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 8
    picture("turned8.png", Image.fromarray(rgb), exif=exif)
    picture("turned8.webp", Image.fromarray(rgb), lossless=True, exif=exif)
    with_alpha = np.dstack([rgb, np.where(rgb[..., 0] > 128, 255, 40).astype(np.uint8)])
    picture("alpha_lossy.webp", Image.fromarray(with_alpha), quality=90, exact=True)


def interlaced_rgb16(rgb):
    """16-bit colour, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    deep = (rgb.astype(np.uint16) << 8 | 0xF0).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    head = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    (HERE / "rgb16.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    )
    with Image.open(HERE / "rgb16.png") as read:
        expected["rgb16.png"] = np.array(read.convert("RGB"))


def animations():
    def moving(name, frames, **options):
        frames[0].save(HERE / name, save_all=True, append_images=frames[1:], **options)
        with Image.open(HERE / name) as read:
            expected[f"{name}.clip"] = np.stack([np.array(f.convert("RGB")) for f in ImageSequence.Iterator(read)])

    opaque = [Image.fromarray(scene(W, H, t)).quantize(32) for t in (0, 0.4, 0.8)]
    # "Restore to previous" on a first frame has no previous to restore; readers differ.
    for name, disposal in {"disposal1": 1, "disposal2": 2, "disposal3": [1, 3, 1]}.items():
        moving(f"{name}.gif", opaque, duration=[50, 70, 60], disposal=disposal, loop=0)
    moving("lossy.webp", [Image.fromarray(scene(W, H, t)) for t in (0, 0.4, 0.8)], duration=40, quality=90)


def ffmpeg(args, stdin=b""):
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    done = subprocess.run([exe, "-v", "error", "-y", "-threads", "1", *args], input=stdin, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout


def clips():
    frames, width, height = 24, 36, 28
    raw = np.stack([scene(width, height, t / 4) for t in range(frames)]).tobytes()
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "12.5", "-i", "-"]
    bitexact = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
    x264 = ["-c:v", "libx264", "-crf", "26", "-pix_fmt", "yuv420p", "-threads", "1", *bitexact]
    files = {
        "pyramid.mp4": ["-bf", "4", "-g", "12", "-x264-params", "b-adapt=0:b-pyramid=normal:ref=4:weightp=2"],
        "open_gop.mp4": ["-bf", "3", "-g", "8", "-x264-params", "open-gop=1:b-adapt=0"],
        "fragments.mp4": ["-bf", "2", "-g", "8", "-movflags", "+frag_keyframe+empty_moov+default_base_moof"],
        "fragments_old.mp4": ["-bf", "0", "-g", "8", "-movflags", "+frag_keyframe"],
        "slices.mp4": ["-bf", "2", "-x264-params", "slices=3:no-cabac=1"],
        "negative_offsets.mp4": ["-bf", "2", "-movflags", "+negative_cts_offsets"],
        "bt709.mp4": ["-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-color_primaries", "bt709",
                      "-color_trc", "bt709"],
        "full_range.mp4": ["-vf", "scale=out_range=full", "-color_range", "pc"],
        "in_band.mp4": ["-tag:v", "avc3", "-bsf:v", "dump_extra"],
        "lossless.mp4": ["-crf", "0", "-profile:v", "high444"],
    }
    for name, options in files.items():
        path = str(HERE / name)
        ffmpeg([*source, *x264, *options, path], raw[: 3 * width * height * 3] if name == "lossless.mp4" else raw)
        if name == "lossless.mp4":
            continue
        yuv = ffmpeg(["-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuvj420p" if "full" in name
                      else "yuv420p", "-"])
        expected[f"{name}.yuv"] = np.frombuffer(yuv, np.uint8).copy().reshape(-1, height * 3 // 2, width)
        if name in ("bt709.mp4", "full_range.mp4", "pyramid.mp4"):
            rgb = ffmpeg(["-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
            # A few frames say how planes become colours.
            expected[f"{name}.clip"] = np.frombuffer(rgb, np.uint8).copy().reshape(-1, height, width, 3)[:6]
    # What is refused by name.
    few = raw[: 4 * width * height * 3]
    ffmpeg([*source, *x264, "-x264-params", "interlaced=1", str(HERE / "interlaced.mp4")], few)
    ffmpeg([*source, "-c:v", "libx264", "-pix_fmt", "yuv422p", *bitexact, str(HERE / "chroma422.mp4")], few)
    ffmpeg([*source, "-c:v", "mpeg4", *bitexact, str(HERE / "part2.mp4")], few)
    ffmpeg(["-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac", *bitexact, str(HERE / "sound_only.mp4")])


def sounds():
    t = np.arange(9000) / 22050
    chirp = (0.6 * np.sin(2 * np.pi * (200 * t + 3000 * t * t))).astype(np.float32)
    stereo = np.stack([chirp, 0.5 * chirp[::-1]], axis=1)

    def sound(name, samples, rate, **options):
        soundfile.write(HERE / name, samples, rate, **options)
        read, _ = soundfile.read(HERE / name, dtype="float32", always_2d=True)
        expected[f"{name}.samples"] = read.mean(axis=1, dtype=np.float32)

    sound("u8.wav", chirp[:2000], 16000, subtype="PCM_U8")
    sound("pcm32_stereo.wav", stereo[:2000], 16000, subtype="PCM_32")
    sound("double.wav", chirp[:2000].astype(np.float64), 16000, subtype="DOUBLE")
    sound("mulaw.wav", chirp[:2000], 16000, subtype="ULAW")
    sound("stereo24.flac", stereo, 16000, subtype="PCM_24")
    pcm = (np.stack([chirp, chirp], 1) * 32767).astype("<i2").tobytes()
    for name, options in {"vbr_stereo.mp3": ["-q:a", "4", "-id3v2_version", "3", "-metadata", "title=x"],
                          "cbr_no_xing.mp3": ["-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0"]}.items():
        ffmpeg(["-f", "s16le", "-ar", "22050", "-ac", "2", "-i", "-", "-c:a", "libmp3lame", *options,
                "-ar", "16000", "-fflags", "+bitexact", "-flags:a", "+bitexact", str(HERE / name)], pcm)
        read = np.frombuffer(ffmpeg(["-i", str(HERE / name), "-f", "f32le", "-"]), np.float32).reshape(-1, 2)
        expected[f"{name}.samples"] = read.mean(axis=1, dtype=np.float32)


for make in (pictures, animations, clips, sounds):
    make()
(HERE / "expected.safetensors.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(save(expected)))
