"""The same small picture, clip and chirp in every container, with what established decoders read from them."""

import subprocess

import imageio_ffmpeg
import numpy as np
import soundfile
from PIL import Image, ImageOps, ImageSequence
from scipy.io import wavfile
from scipy.signal import resample_poly

from . import media
from .paths import DECODERS, write_json, write_tensors

WIDTH, HEIGHT = 47, 35
CLIP_WIDTH, CLIP_HEIGHT, CLIP_FRAMES, CLIP_FPS = 44, 36, 20, 10


def ffmpeg(args, stdin=b""):
    """Run ffmpeg single-threaded and bit-exact; returns stdout."""
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    done = subprocess.run([exe, "-v", "error", "-y", "-threads", "1", *args], input=stdin, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout


def pictures():
    rgb = Image.fromarray(media.picture(WIDTH, HEIGHT, "RGB", 11))
    rgba = Image.fromarray(media.picture(WIDTH, HEIGHT, "RGBA", 11))
    moving = [Image.fromarray(f) for f in media.clip(4, WIDTH, HEIGHT, 5)]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    files = {
        "rgb.png": (rgb, {"optimize": True}),
        "rgba.png": (rgba, {"optimize": True}),
        "gray.png": (rgb.convert("L"), {"optimize": True}),
        "gray_alpha.png": (rgba.convert("LA"), {"optimize": True}),
        "palette.png": (rgb.quantize(32), {"optimize": True}),
        "baseline.jpg": (rgb, {"quality": 90}),
        "progressive.jpg": (rgb, {"quality": 90, "progressive": True}),
        "full_chroma.jpg": (rgb, {"quality": 90, "subsampling": 0}),
        "gray.jpg": (rgb.convert("L"), {"quality": 90}),
        "turned.jpg": (rgb, {"quality": 90, "exif": exif}),
        "lossy.webp": (rgb, {"quality": 85, "method": 4}),
        "lossless.webp": (rgb, {"lossless": True}),
        "alpha.webp": (rgba, {"lossless": True, "exact": True}),
        "still.gif": (rgb.quantize(64), {}),
        "moving.gif": ([m.quantize(48) for m in moving], {"duration": [100, 200, 100, 300], "loop": 0}),
        "moving.webp": (moving, {"duration": [100, 200, 100, 300], "loop": 0, "lossless": True}),
    }
    tensors, rows = {}, []
    for name, (image, options) in files.items():
        path = DECODERS / name
        if isinstance(image, list):
            image[0].save(path, save_all=True, append_images=image[1:], **options)
        else:
            image.save(path, **options)
        with Image.open(path) as read:
            row = {"file": name, "mode": read.mode, "width": read.width, "height": read.height}
            if getattr(read, "n_frames", 1) > 1:
                frames, durations = [], []
                for frame in ImageSequence.Iterator(read):
                    frames.append(np.array(frame.convert("RGB")))
                    durations.append(int(frame.info["duration"]))
                tensors[f"{name}.rgb"] = np.stack(frames)
                row.update(frames=len(frames), durations_ms=durations)
            else:
                tensors[f"{name}.rgb"] = np.array(read.convert("RGB"))
                if "A" in read.mode:
                    tensors[f"{name}.rgba"] = np.array(read.convert("RGBA"))
                if name == "turned.jpg":
                    tensors[f"{name}.rgb_upright"] = np.array(ImageOps.exif_transpose(read).convert("RGB"))
                    row["orientation"] = 6
        rows.append(row)
    return tensors, rows


def clips():
    frames = media.clip(CLIP_FRAMES, CLIP_WIDTH, CLIP_HEIGHT, 3)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{CLIP_WIDTH}x{CLIP_HEIGHT}", "-r", str(CLIP_FPS), "-i", "-"]
    x264 = ["-c:v", "libx264", "-crf", "24", "-pix_fmt", "yuv420p", "-threads", "1", "-fflags", "+bitexact",
            "-flags:v", "+bitexact", "-map_metadata", "-1"]
    tensors, rows = {}, []
    for name, options in {
        "b_frames.mp4": ["-profile:v", "high", "-bf", "2", "-g", "10", "-x264-params", "b-adapt=0:b-pyramid=none"],
        "baseline_faststart.mp4": ["-profile:v", "baseline", "-g", "7", "-movflags", "+faststart"],
    }.items():
        path = str(DECODERS / name)
        ffmpeg([*raw, *x264, *options, path], frames.tobytes())
        yuv = np.frombuffer(ffmpeg(["-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]), np.uint8).copy()
        if name == "b_frames.mp4":
            rgb = np.frombuffer(ffmpeg(["-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]), np.uint8).copy()
            tensors[f"{name}.rgb"] = rgb.reshape(CLIP_FRAMES, CLIP_HEIGHT, CLIP_WIDTH, 3)
        tensors[f"{name}.yuv420p"] = yuv.reshape(CLIP_FRAMES, CLIP_HEIGHT * 3 // 2, CLIP_WIDTH)
        rows.append({"file": name, "frames": CLIP_FRAMES, "fps": CLIP_FPS, "width": CLIP_WIDTH, "height": CLIP_HEIGHT})
    return tensors, rows


def sounds():
    mono = media.sound("chirp", 4000)
    t = np.arange(6615) / 44100.0
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 997 * t), 0.3 * np.sin(2 * np.pi * (300 * t + 4000 * t * t))], axis=1)
    pcm = np.rint(mono * 32768.0).clip(-32768, 32767).astype(np.int16)
    media.write_wav16(DECODERS / "mono16k_pcm16.wav", mono)
    wavfile.write(DECODERS / "mono16k_float.wav", 16000, mono.astype(np.float32))  # soundfile would add the date
    media.write_wav16(DECODERS / "stereo44k_pcm16.wav", stereo, 44100)
    soundfile.write(DECODERS / "mono16k_pcm24.wav", mono, 16000, subtype="PCM_24")
    soundfile.write(DECODERS / "mono16k.flac", pcm, 16000, subtype="PCM_16")
    ffmpeg(["-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-", "-c:a", "libmp3lame", "-b:a", "64k", "-fflags",
            "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1", str(DECODERS / "mono16k.mp3")], pcm.tobytes())
    tensors, rows = {}, []
    for name in ("mono16k_pcm16.wav", "mono16k_float.wav", "stereo44k_pcm16.wav", "mono16k_pcm24.wav", "mono16k.flac"):
        samples, rate = soundfile.read(DECODERS / name, dtype="float32", always_2d=True)
        if name == "mono16k.flac":  # the same 16-bit samples
            assert np.array_equal(samples, tensors["mono16k_pcm16.wav.samples"])
        else:
            tensors[f"{name}.samples"] = samples
        rows.append({"file": name, "sampling_rate": rate, "samples": len(samples), "channels": samples.shape[1]})
    mp3 = np.frombuffer(ffmpeg(["-i", str(DECODERS / "mono16k.mp3"), "-f", "f32le", "-"]), np.float32).copy()
    tensors["mono16k.mp3.samples"] = mp3.reshape(-1, 1)
    rows.append({"file": "mono16k.mp3", "sampling_rate": 16000, "samples": len(mp3), "channels": 1})
    # What resampling to the model's 16 kHz mono should come close to (another filter differs at the ends).
    mixed = tensors["stereo44k_pcm16.wav.samples"].mean(axis=1)
    tensors["stereo44k_pcm16.wav.mono16k"] = resample_poly(mixed.astype(np.float64), 160, 441).astype(np.float32)
    return tensors, rows


def make():
    DECODERS.mkdir(parents=True, exist_ok=True)
    for old in DECODERS.glob("*"):
        old.unlink()
    tensors, index = {}, {}
    for kind, maker in (("pictures", pictures), ("clips", clips), ("sounds", sounds)):
        part, index[kind] = maker()
        tensors.update(part)
    write_tensors(DECODERS / "expected.safetensors", tensors)
    write_json(DECODERS / "index.json", index)
