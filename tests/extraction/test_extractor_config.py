import dataclasses
import json

import pytest

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.config import ExtractorConfig, FeatureConfig, digest_of_path

PICTURE = FeatureConfig(
    kind="tflite",
    model="mobile.tflite",
    path="/somewhere/mobile.tflite",
    sha256="ab" * 32,
    copy="picture.tflite",
    image_size=(224, 224),
    projection="pca",
    constants="picture.npz",
    constants_sha256="cd" * 32,
    size=256,
)
SOUND = FeatureConfig(kind="log_mel", model="log_mel", projection="standardize", size=64)
CONFIG = ExtractorConfig(picture=PICTURE, sound=SOUND, frames_per_second=25, crop=(1, 2, 30, 40))


def test_json_round_trip(tmp_path):
    CONFIG.save(tmp_path)
    for path in (tmp_path, tmp_path / "extractor.json"):
        assert ExtractorConfig.load(path) == CONFIG
    assert CONFIG.feature_sizes == {"rgb": 256, "audio": 64}
    assert CONFIG.files == {"picture.tflite": "ab" * 32, "picture.npz": "cd" * 32}
    assert CONFIG.description == "mobile.tflite (pca), log_mel (standardize), 25 frames a second"


def test_every_field_that_defines_the_features_is_compared():
    same_place = dataclasses.replace(
        CONFIG, picture=dataclasses.replace(PICTURE, path=None, copy=None)
    )
    assert CONFIG.differences(same_place) == []
    assert CONFIG.differences(dataclasses.replace(CONFIG, sound=None)) == [
        f"sound.{name}: {value!r} != None"
        for name, value in dataclasses.asdict(SOUND).items()
        if value is not None
    ]
    changed = {
        "kind": "keras",
        "model": "other.tflite",
        "sha256": "ef" * 32,
        "output": "pool",
        "image_size": (96, 96),
        "value_range": (-1.0, 1.0),
        "projection": "standardize",
        "constants": "other.npz",
        "constants_sha256": "ef" * 32,
        "size": 128,
    }
    assert set(changed) == {f.name for f in dataclasses.fields(FeatureConfig)} - {"path", "copy"}
    for name, value in changed.items():
        other = dataclasses.replace(CONFIG, picture=dataclasses.replace(PICTURE, **{name: value}))
        [line] = CONFIG.differences(other)
        assert line.startswith(f"picture.{name}: ")
    for name, value in {"frames_per_second": 1.0, "max_seconds": None, "crop": None}.items():
        [line] = CONFIG.differences(dataclasses.replace(CONFIG, **{name: value}))
        assert line.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames_per_second": 0.0}, r"--fps must be more than 0 and at most 1000\. Received: 0.0"),
        ({"max_seconds": -1.0}, r"--max_seconds must be positive.*Received: -1.0"),
        ({"crop": (0, 0, 0, 5)}, r"--crop must be x,y,width,height.*Received: 0,0,0,5"),
        ({"picture": None, "sound": None}, r"needs a model: --picture or --sound"),
        ({"version": 2}, r"version 1\. Received: 2"),
        ({"sound": PICTURE, "picture": SOUND}, r"kind of a model must be one of application"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(surprise=1), "unknown setting surprise"),
        (lambda d: d["picture"].update(size="x"), "picture.size must be int"),
        (lambda d: d["picture"].update(copy="../x"), "plain name without folders"),
        (lambda d: d["picture"].update(projection="x"), "projection must be one of"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, change, message):
    values = json.loads(CONFIG.to_json())
    change(values)
    path = tmp_path / "extractor.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message) as error:
        ExtractorConfig.load(path)
    assert str(path) in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"extractor\.json, which yt8m-gat extract writes"):
        ExtractorConfig.load(tmp_path)


def test_what_counts_as_youtube8ms_own():
    picture = FeatureConfig(kind="youtube8m", model="youtube8m", projection="youtube8m", size=1024)
    sound = FeatureConfig(kind="vggish", model="vggish", projection="vggish", size=128)
    official = ExtractorConfig(picture=picture, sound=sound)
    assert official.is_youtube8m
    assert official.feature_sizes == {"rgb": 1024, "audio": 128}
    assert not dataclasses.replace(official, sound=SOUND).is_youtube8m
    assert not dataclasses.replace(official, picture=PICTURE).is_youtube8m
    assert not dataclasses.replace(official, frames_per_second=2.0).is_youtube8m


def test_the_digest_of_a_folder_is_that_of_its_files(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "variables").mkdir(parents=True)
        (tmp_path / folder / "variables" / "a").write_bytes(b"1")
        (tmp_path / folder / "b").write_bytes(b"2")
    assert digest_of_path(tmp_path / "one") == digest_of_path(tmp_path / "two")
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
    assert digest_of_path(tmp_path / "one") != digest_of_path(tmp_path / "two")
