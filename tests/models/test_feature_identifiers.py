"""Feature names may be any text; layers named after them need names that Keras accepts."""

import re

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from yt8m_gat.models import build_model, feature_identifiers

ODD = ("RGB/feature", "1 rgb:0", "  ", "音声", "RGB feature", "frame mask", "feature_2")
OPTIONS = {"num_heads": 2, "hidden_size": 4, "feed_forward_size": 4}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(min_size=1) | st.sampled_from(ODD), min_size=1, max_size=8, unique=True))
def test_each_name_has_an_identifier_of_its_own(names):
    found = feature_identifiers(names)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    for name, identifier in found.items():
        assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9_]*", identifier)
        assert identifier not in ("frame_mask", "num_frames")
        if re.fullmatch("[A-Za-z0-9][A-Za-z0-9_]*", name) and "frame" not in name:
            assert identifier == name


def test_names_of_the_datasets_stay_and_others_are_readable():
    kept = ["rgb", "audio", "mean_rgb", "mean_audio", "audio_embedding", "RGB", "0"]
    assert list(feature_identifiers(kept).values()) == kept
    assert list(feature_identifiers(ODD).values()) == [
        "RGB_feature",
        "1_rgb_0",
        "feature_9",
        "feature_3",
        "feature_4",
        "feature_5",
        "feature_2",
    ]


def test_a_model_of_odd_names_is_the_one_of_plain_names(tmp_path):
    """Keras refuses a slash and TensorFlow blanks; a file restores the original names."""
    names = ("RGB/feature", "1 rgb:0")
    keras.utils.set_random_seed(1)
    odd = build_model("Transformer", dict.fromkeys(names, 4), 3, 12, **OPTIONS)
    keras.utils.set_random_seed(1)
    plain = build_model("Transformer", {"f0": 4, "f1": 4}, 3, 12, **OPTIONS)
    odd.save(tmp_path / "odd.keras")
    restored = keras.models.load_model(tmp_path / "odd.keras")
    assert tuple(restored.feature_sizes) == names
    mask = np.arange(5) < np.array([[5], [2]])
    rng = np.random.default_rng(0)
    frames = {name: rng.normal(size=(2, 5, 4)).astype(np.float32) for name in names}
    plain_frames = {"f0": frames[names[0]], "f1": frames[names[1]]}
    expected = plain({**plain_frames, "frame_mask": mask})
    for found in (odd, restored):
        np.testing.assert_array_equal(found({**frames, "frame_mask": mask}), expected)
    assert tuple(odd.forward(frames, mask).attention_maps) == names
