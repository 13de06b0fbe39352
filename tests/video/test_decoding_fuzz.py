"""Five hundred mutated videos: no crash, no hang, no error but one line."""

import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_videos

SCRIPT = Path(__file__).with_name("fuzz_decoding.py")
SECONDS_EACH = 60
"""Far more than one of these files takes, also on a busy machine."""


def write_seeds(folder):
    sound = np.round(np.sin(np.arange(16_000) / 6) * 12_000)[None]
    images = tiny_videos.numbered(10)
    for name in ("a.mp4", "b.mkv", "c.ts"):
        tiny_videos.write(folder / name, images, sound=sound)
    tiny_videos.write(folder / "d.avi", images, codec="mjpeg", sound=sound, sound_codec="pcm_s16le")
    tiny_videos.write(
        folder / "e.webm",
        images,
        codec="libvpx",
        sound=np.repeat(sound, 3, axis=1),
        sound_rate=48_000,
        sound_codec="libopus",
    )
    tiny_videos.write(folder / "f.gif", images, codec="gif")
    tiny_videos.write(folder / "g.flv", images, codec="flv1")


@pytest.mark.slow
def test_mutated_files_neither_crash_nor_hang(tmp_path):
    write_seeds(tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path), "0", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=SCRIPT.parents[2],
        env={"PYTHONPATH": str(SCRIPT.parents[2])},
    )
    lines = queue.Queue()
    reader = threading.Thread(
        target=lambda: [lines.put(line) for line in [*process.stdout, None]], daemon=True
    )
    reader.start()
    seen = []
    try:
        while (line := lines.get(timeout=SECONDS_EACH)) is not None:
            seen.append(line.split())
    except queue.Empty:
        process.kill()
        pytest.fail(f"hangs at: {seen[-1:]}")
    _, errors = process.communicate()
    assert process.returncode == 0, (
        f"ends with {process.returncode} at {seen[-1:]}: {errors[-800:]}"
    )
    outcomes = [words[2] for words in seen if words[0] == "end"]
    assert len(outcomes) == 500
    # Mutations that all files survive, or none, would test nothing.
    assert 20 < outcomes.count("refused") < 250
    assert sum("read" in outcome for outcome in outcomes) > 100
    assert sum("none" in outcome for outcome in outcomes) > 50
