"""Decodes mutated videos; run as a process by test_decoding_fuzz.py, which watches its lines.

python fuzz_decoding.py FOLDER_OF_SEEDS FIRST LAST
"""

import itertools
import random
import sys
import tempfile
from pathlib import Path

from yt8m_gat.video.decoding import Video, VideoError

MAX_PARTS = 10_000
"""No five seconds of these files have as many frames or chunks of sound."""


def mutated(content, rng):
    """One mutation of a file: flipped bits, a lost or repeated part, or its beginning alone."""
    content = bytearray(content)
    kind = rng.randrange(5)
    if kind == 4:
        return bytes(content[: rng.randrange(len(content))])
    for _ in range(rng.choice([1, 4, 32])):
        if not content:
            break
        # Half of the mutations hit the header, where the numbers are.
        place = rng.randrange(min(len(content), 1024) if rng.random() < 0.5 else len(content))
        length = rng.randrange(1, 64)
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        elif kind == 2:
            del content[place : place + length]
        else:
            content[place:place] = content[place : place + length]
    return bytes(content)


def decode(path, rng):
    """Reads picture and sound as a job does; returns what happened, in a word."""
    start = rng.choice([0.0, 0.0, 0.7, 4.0])
    try:
        with Video(path, start=start, end=start + 5) as video:
            outcomes = []
            for read in (
                lambda: video.frames(
                    frames_per_second=rng.choice([None, 2.0, 25.0]), size=(32, 32)
                ),
                lambda: video.frames(short_side=24, crop=(2, 2, 16, 16)),
                video.sound,
            ):
                try:
                    assert sum(1 for _ in itertools.islice(read(), MAX_PARTS)) < MAX_PARTS
                    outcomes.append("read")
                except VideoError as error:
                    assert "\n" not in str(error), error
                    outcomes.append("none")
            assert all("\n" not in fault for fault in video.faults), video.faults
            return "+".join(outcomes) + (" faults" if video.faults else "")
    except VideoError as error:
        assert "\n" not in str(error), error
        return "refused"


def main():
    seeds = sorted(Path(sys.argv[1]).iterdir())
    with tempfile.TemporaryDirectory() as folder:
        for number in range(int(sys.argv[2]), int(sys.argv[3])):
            rng = random.Random(number)
            seed = rng.choice(seeds)
            path = Path(folder, f"{number}{seed.suffix}")
            path.write_bytes(mutated(seed.read_bytes(), rng))
            print("begin", number, seed.name, flush=True)
            print("end", number, decode(path, rng), flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
