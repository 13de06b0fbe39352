"""Measures the reading of videos: over a bare decoding loop, and peak memory over the length.

    python benchmarks/extract.py --output_file=extract.json
    python benchmarks/extract.py --video=film.mp4 --seconds=60

The bare loop decodes every frame with PyAV and drops it, which is what `ffmpeg -f null` does with
the same libraries; no program of FFmpeg is needed. Both run in one process in turn, with equal
numbers of decoder threads, so that other load on the machine affects both alike; the best of the
repetitions counts. A ratio is bare time over ours: 1 is no cost at all. `every frame` is held
against a bare loop that also resizes each frame, as FFmpeg does by default. Peak memory is that of
a new process for each length; the files are copies of one minute, one after the other.

`--backbone=EfficientNetB0` also measures the extraction of features, pictures by that model of
keras.applications without trained weights and sound by log-mel, against the bare model on the same
frames in memory.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from machine import describe_machine

from yt8m_gat.video.decoding import Video


def write_video(path, seconds, width, height, rate):
    """A picture that moves everywhere, in H.264, with sound."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (height // 8, width // 4 + seconds * rate, 3), np.uint8)
    wide = np.kron(wide, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(seconds * rate):
            image = np.ascontiguousarray(wide[:height, 4 * number : 4 * number + width])
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(picture.encode(None))
        for number in range(seconds * 16_000 // 1024):
            noise = rng.normal(0, 0.1, (1, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def repeat_video(source, path, times):
    """Writes copies of a file's packets one after the other, without encoding them again."""
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        streams = {s.index: container.add_stream_from_template(s) for s in original.streams}
        length = Fraction(original.duration, 10**6)
        for turn in range(times):
            original.seek(0)
            for packet in original.demux():
                if packet.dts is None:
                    continue
                shift = round(turn * length / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                container.mux(packet)


def bare(path, end, num_threads, size=None):
    """Decodes every frame; with a size (height, width) also resizes it, as `-vf scale` does."""
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = num_threads
        stream.codec_context.thread_type = "SLICE" if num_threads == 1 else "AUTO"
        for frame in container.decode(stream):
            if frame.time >= end:
                return
            if size is not None:
                reformatter.reformat(
                    frame, *size[::-1], "rgb24", interpolation="BICUBIC", threads=1
                ).to_ndarray()


def ours(path, end, num_threads, **options):
    with Video(path, end=end, num_threads=num_threads) as video:
        for _ in video.frames(**options):
            pass


SIZE = (224, 224)
WORKS = {
    "bare": (bare, {}),
    "bare, each frame resized": (bare, {"size": SIZE}),
    "1 frame a second": (ours, {"frames_per_second": 1, "size": SIZE}),
    "every frame": (ours, {"size": SIZE}),
}
YARDSTICKS = {"1 frame a second": "bare", "every frame": "bare, each frame resized"}


def measure_speed(path, end, repeats):
    """Returns, by threads: seconds of each work, and ratios of wall-clock and processor time."""
    results = {}
    for num_threads in (1, 2):
        best = dict.fromkeys(WORKS, (float("inf"), float("inf")))
        for _ in range(repeats):
            for name, (work, options) in WORKS.items():
                start = time.perf_counter(), time.process_time()
                work(path, end, num_threads, **options)
                spent = time.perf_counter() - start[0], time.process_time() - start[1]
                best[name] = tuple(map(min, best[name], spent))
        values = {f"{name}, seconds": wall for name, (wall, _) in best.items()}
        for name, other in YARDSTICKS.items():
            for kind, mine, theirs in zip(
                ("wall-clock", "processor"), best[name], best[other], strict=True
            ):
                values[f"{name}, {kind} ratio"] = theirs / mine
        results[f"{num_threads} threads"] = values
    return results


def measure_extraction(folder, backbone, path, end, repeats):
    """Returns seconds of the bare model and of the extraction, and the ratios of the two."""
    import keras

    from yt8m_gat.extraction.config import ExtractorConfig, FeatureConfig
    from yt8m_gat.extraction.extractor import Extractor
    from yt8m_gat.extraction.extractor_parts import load_models
    from yt8m_gat.extraction.reading import BATCH_SIZE
    from yt8m_gat.video.clips import Clip

    options = {"weights": None, "include_top": False, "pooling": "avg"}
    getattr(keras.applications, backbone)(input_shape=(*SIZE, 3), **options).save(
        folder / "model.keras"
    )
    rate = Video(path).info.frames_per_second
    config = ExtractorConfig(
        picture=FeatureConfig(kind="keras", model=backbone),
        sound=FeatureConfig(kind="log_mel", model="log_mel"),
        frames_per_second=rate,
    )
    models = load_models(config, {"picture": folder / "model.keras", "sound": None})
    with Video(path, end=end) as video:
        frames = [frame.image for frame in video.frames(frames_per_second=rate, size=SIZE)]
    frames = np.stack(frames)

    def bare_model():
        for first in range(0, len(frames), BATCH_SIZE):
            models.picture.call(frames[first : first + BATCH_SIZE])

    def extraction():
        for values in Extractor(config, models, {}).values([Clip(str(path), end=end)]):
            if len(values.seconds) != len(frames):
                sys.exit(f"{path}: {len(values.seconds)} frames of {len(frames)}")

    bare_model()  # Compiles it.
    best = dict.fromkeys((bare_model, extraction), (float("inf"), float("inf")))
    for _ in range(repeats):
        for work in best:
            start = time.perf_counter(), time.process_time()
            work()
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            best[work] = tuple(map(min, best[work], spent))
    ratios = [theirs / mine for theirs, mine in zip(*best.values(), strict=True)]
    return {
        "frames": len(frames),
        "bare model, seconds": best[bare_model][0],
        "extraction, seconds": best[extraction][0],
        "wall-clock ratio": ratios[0],
        "processor ratio": ratios[1],
    }


def read_everything(path):
    """Reads picture and sound of a file; prints the peak memory of this process in MB."""
    with Video(path) as video:
        frames = sum(1 for _ in video.frames(frames_per_second=1, size=(224, 224)))
        samples = sum(len(chunk) for chunk in video.sound())
        if video.faults:
            sys.exit(f"{path}: {video.faults}")
    # `ru_maxrss` would include the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    print(json.dumps({"frames": frames, "seconds_of_sound": samples / 16_000, "peak_mb": peak}))


def measure_memory(folder, minutes):
    write_video(folder / "minute.mp4", 60, 160, 96, 8)
    results = {}
    for count in minutes:
        path = folder / f"{count}.mp4"
        repeat_video(folder / "minute.mp4", path, count)
        command = [sys.executable, __file__, f"--read={path}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[f"{count} minutes"] = json.loads(output)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--video", help="an existing file instead of a generated one, 1280 x 720")
    parser.add_argument("--seconds", type=float, default=20.0, help="how much of it is read")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=int, nargs="*", default=[1, 10, 60])
    parser.add_argument("--backbone", help="a model of keras.applications: extraction is measured")
    parser.add_argument("--output_file", help="JSON file of the results")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_everything(arguments.read)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = arguments.video
        if video is None:
            video = folder / "video.mp4"
            write_video(video, max(1, round(arguments.seconds)), 1280, 720, 24)
        results = {
            "machine": describe_machine(),
            "video": str(arguments.video),
            "speed": measure_speed(video, arguments.seconds, arguments.repeats),
            "memory": measure_memory(folder, arguments.minutes),
        }
        if arguments.backbone:
            results["extraction"] = {
                arguments.backbone: measure_extraction(
                    folder, arguments.backbone, video, arguments.seconds, arguments.repeats
                )
            }
    for part in ("speed", "memory", "extraction"):
        for name, values in results.get(part, {}).items():
            print(f"{part}, {name}:")
            for key, value in values.items():
                print(f"  {key:40} {value:.3g}")
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
