"""Extraction on Beam's local runner against the command. `make test-beam` runs it."""

import csv

import keras
import numpy as np
import pytest
import tiny_models
import tiny_videos

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: run `make test-beam`")

from yt8m_gat.commands import extract as command
from yt8m_gat.extraction.shards import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The flags of a job of five videos, one of them bad."""
    folder = tmp_path_factory.mktemp("videos")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for number in range(4):
            images = rng.integers(20, 230, (6 + number, 48, 64, 3), dtype=np.uint8)
            sound = rng.integers(-900, 900, (1, 24_000)).astype(np.int16)
            tiny_videos.write(
                folder / f"v{number}.mkv", images, fps=4, sound=sound, sound_codec="pcm_s16le"
            )
            writer.writerow([f"v{number}.mkv", "odd" if number % 2 else "even"])
        (folder / "bad.mkv").write_bytes(b"no video")
        writer.writerow(["bad.mkv", "odd"])
    model = tiny_models.saved(tiny_models.mean_color(), folder)
    return [f"--labels={folder / 'clips.csv'}", f"--picture={model}", "--fps=5", "--num_shards=2"]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_beam_makes_the_bytes_of_the_command(words, tmp_path, capsys):
    words = [*words, "--on_bad_file=skip"]
    # A video that is not fitted to is decoded by a worker.
    words.append("--fit_videos=2")
    command.main([*words, f"--output_dir={tmp_path / 'here'}"])
    beam = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
    command.main([*words, f"--output_dir={tmp_path / 'beam'}", *beam])
    assert contents(tmp_path / "beam") == contents(tmp_path / "here")
    assert read_manifest(tmp_path / "beam")[4]["frames"] == "0"
    assert capsys.readouterr().out.count("4 videos; mean.keras (standardize)") == 2


def test_a_bad_file_stops_it_with_the_line_of_the_command(words, tmp_path, capsys):
    words = [*words, "--fit_videos=1", f"--output_dir={tmp_path}", "--runner=FnApiRunner"]
    for again in (words, words):
        with pytest.raises(SystemExit) as stopped:
            command.main(again)
        assert stopped.value.code == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "bad.mkv" in error and "error: " in error
    # The other clips are kept for the next time.
    kept = len(list((tmp_path / ".unfinished").glob("*.record")))
    assert kept + 2 * len(list(tmp_path.glob("*.tfrecord"))) >= 2
