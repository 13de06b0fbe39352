"""A run folder and an export of an earlier commit (ed56466) give the predictions that they gave.

`stored/gat_of_version_0_1.tar.xz` holds both, the clips that they were trained on, and what
`inference.py` and the SavedModel said of those clips then. It is a GAT of 4 classes and 4 units,
after one epoch of 8 clips.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.run_folder import RunFolder

pytestmark = pytest.mark.slow

ARCHIVE = Path(__file__).parent / "stored" / "gat_of_version_0_1.tar.xz"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder, json.loads((folder / "expected.json").read_text())


def probabilities(csv):
    """(video, class) -> probability."""
    rows = [line.split(",") for line in csv.splitlines()[1:]]
    pairs = [(video, text.split()) for video, text in rows]
    return {
        (video, int(index)): float(probability)
        for video, words in pairs
        for index, probability in zip(words[::2], words[1::2], strict=True)
    }


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_stored_run_folder_predicts_what_it_did(stored, tmp_path, checkpoint):
    folder, expected = stored
    output_file = tmp_path / "submission.csv"
    pipeline.infer(
        RunFolder(folder / "run"),
        input_data_pattern=str(folder / "clips.tfrecord"),
        output_file=output_file,
        top_k=4,
        checkpoint=checkpoint,
    )
    expected = probabilities(expected[checkpoint])
    assert len(expected) == 8 * 4
    # The last digit of the CSV may differ between processors.
    assert probabilities(output_file.read_text()) == pytest.approx(expected, abs=2e-6)


def test_a_stored_export_predicts_what_it_did(stored):
    folder, expected = stored
    records = list(tf.data.TFRecordDataset(str(folder / "clips.tfrecord")).as_numpy_iterator())
    serve = tf.saved_model.load(str(folder / "export" / "1")).signatures["serving_default"]
    outputs = serve(tf.constant(records))
    expected = expected["export"]
    assert [name.decode() for name in outputs["video_id"].numpy()] == expected["video_id"]
    np.testing.assert_array_equal(outputs["class_indexes"], expected["class_indexes"])
    np.testing.assert_allclose(outputs["predictions"], expected["predictions"], atol=2e-6)
