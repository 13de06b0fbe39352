"""The signature `images`: from files of frames, and sound, to the predictions of records."""

import json
import shutil

import av
import keras
import numpy as np
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.config import DataConfig, ModelConfig, RunConfig
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.export.saved_model import ServingModule
from yt8m_gat.extraction.config import ExtractorConfig, FeatureConfig, digest_of_path
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.pca import PCA
from yt8m_gat.extraction.projection import Standardize, Whiten, save
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import exporting
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.video.decoding import Video
from yt8m_gat.weights.hdf5 import save_weights

RATE, CROP = 4, (4, 2, 48, 40)
SIZES = {"rgb": 6, "audio": 64}


def write_video(path, num_frames, seed):
    """Smooth moving pictures as a row of JPEG files, and noise; returns the JPEG files."""
    rng = np.random.default_rng(seed)
    jpegs = []
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=RATE, options={"qmin": "1", "qmax": "1"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj444p"
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        y, x = np.mgrid[:48, :64][..., np.newaxis]
        for index in range(num_frames):
            waves = np.sin((x / 9 + y / 7 + index) * rng.uniform(0.5, 1.5, 3) + [0, 2, 4])
            image = np.rint(127.5 + 8 * seed * waves).astype(np.uint8)
            for packet in picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                jpegs.append(bytes(packet))
                container.mux(packet)
        for packet in picture.encode():
            jpegs.append(bytes(packet))
            container.mux(packet)
        # The sound ends two and a half frames before the picture.
        num_samples = 16_000 * (2 * num_frames - 5) // (2 * RATE)
        samples = rng.normal(0, seed**3, (1, num_samples)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert len(jpegs) == num_frames
    return jpegs


def write_extractor(folder, crop=None):
    """A Keras model of pictures, whitened, and log-mel, standardized."""
    rng = np.random.default_rng(3)
    keras.utils.set_random_seed(5)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 24, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model.save(folder / "picture.keras")
    vectors = np.linalg.qr(rng.normal(size=(8, 8)))[0][: SIZES["rgb"]]
    save(Whiten(PCA(np.full(8, 0.2), np.full(6, 1e-3), vectors)), folder / "picture.npz")
    save(Standardize(np.full(64, -2.0), np.full(64, 3.0)), folder / "sound.npz")
    picture = FeatureConfig(
        kind="keras",
        model="picture.keras",
        copy="picture.keras",
        sha256=digest_of_path(folder / "picture.keras"),
        value_range=(-1.0, 1.0),
        projection="pca",
        constants="picture.npz",
        constants_sha256=digest_of_path(folder / "picture.npz"),
        size=SIZES["rgb"],
    )
    sound = FeatureConfig(
        kind="log_mel",
        model="log_mel",
        projection="standardize",
        constants="sound.npz",
        constants_sha256=digest_of_path(folder / "sound.npz"),
        size=SIZES["audio"],
    )
    ExtractorConfig(picture=picture, sound=sound, frames_per_second=RATE, crop=crop).save(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Name of the file -> its JPEG files; the second video is longer than the model reads."""
    folder = tmp_path_factory.mktemp("videos")
    return {folder / f"{n}.avi": write_video(folder / f"{n}.avi", n, seed=n) for n in (5, 14, 9)}


def make_run(folder, names, crop=None):
    """A model that is not trained, on features of this extractor."""
    config = RunConfig(
        data=DataConfig(
            num_classes=6,
            feature_names=names,
            feature_sizes=tuple(SIZES[name] for name in names),
            max_frames=12,
        ),
        model=ModelConfig(name="FrameLevelLogisticModel"),
    )
    run = RunFolder(folder)
    run.prepare(config)
    run.extractor.mkdir()
    write_extractor(run.extractor, crop)
    keras.utils.set_random_seed(2)
    classifier = build_from_config(config)
    rng = np.random.default_rng(1)
    for weight in classifier.trainable_variables:
        weight.assign(weight + rng.normal(0, 1.0, weight.shape))
    save_weights(classifier, run.best_weights, step=0)
    return run, config


def exported(run, config, folder):
    classifier = yt8m_gat.load_run(run.path).model
    return pipeline.export(classifier, config, folder, extractor_dir=run.extractor)


def padded(rows, fill):
    longest = max(map(len, rows))
    return [[*row, *[fill] * (longest - len(row))] for row in rows]


@pytest.mark.parametrize(
    ("names", "crop"),
    [
        pytest.param(("rgb", "audio"), None, id="sound"),
        pytest.param(("rgb",), CROP, id="crop"),
    ],
)
@pytest.mark.slow
def test_jpeg_frames_give_the_predictions_of_their_records(videos, tmp_path, names, crop):
    run, config = make_run(tmp_path / "run", names, crop)
    extractor = Extractor.load(run.extractor)
    features = [extractor(path).features for path in videos]
    examples = [
        {"id": path.stem, "labels": [0], **{name: x[name] for name in names}}
        for path, x in zip(videos, features, strict=True)
    ]
    schema = RecordSchema({name: SIZES[name] for name in names}, num_classes=6)
    yt8m_gat.write_records(tmp_path / "records.tfrecord", examples, schema)
    table = yt8m_gat.load_run(run.path).predict(str(tmp_path / "records.tfrecord"), top_k=None)

    inputs = {"images": tf.constant(padded(videos.values(), b""))}
    if "audio" in names:
        sounds = [np.concatenate(list(Video(path).sound())) for path in videos]
        inputs["waveform"] = tf.constant(padded(sounds, 0.0), tf.float32)

    # The bytes of the features: decoders of JPEG differ by a level here and there.
    made, num_frames = extractor.graph(names)(**inputs)
    assert num_frames.numpy().tolist() == [5, 14, 9]
    assert set(made) == set(names)
    for name, x in made.items():
        for row, length, expected in zip(x.numpy(), num_frames, features, strict=True):
            assert len(expected[name]) == length and expected[name].std() > 20
            differences = np.abs(row[:length].astype(int) - expected[name])
            assert differences.max() <= 4 and differences.mean() < 1, name
            assert not row[int(length) :].any()

    loaded = tf.saved_model.load(str(exported(run, config, tmp_path / "export")))
    outputs = loaded.signatures["images"](**inputs)
    assert set(outputs) == {"class_indexes", "predictions"}
    by_class = np.zeros((3, 6))
    np.put_along_axis(by_class, outputs["class_indexes"].numpy(), outputs["predictions"].numpy(), 1)
    expected = np.zeros((3, 6))
    for place, path in enumerate(videos):
        rows = table[table.video_id == path.stem]
        expected[place, rows.label] = rows.probability
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(by_class, expected, rtol=0, atol=1e-2)


def test_png_files_of_the_models_size_give_the_same_features(videos, tmp_path):
    run, _ = make_run(tmp_path / "run", ("rgb",))
    extractor = Extractor.load(run.extractor)
    path = list(videos)[1]
    with Video(path) as video:
        frames = list(video.frames(frames_per_second=RATE, size=(16, 24)))
    pngs = [tf.io.encode_png(frame.image).numpy() for frame in frames]
    made, num_frames = extractor.graph(["rgb"])(tf.constant([pngs]))
    assert num_frames.numpy().tolist() == [14]
    np.testing.assert_array_equal(made["rgb"][0], extractor(path).features["rgb"])


def test_wrong_images_are_named(videos, tmp_path):
    run, config = make_run(tmp_path / "run", ("rgb",), CROP)
    classifier = yt8m_gat.load_run(run.path).model
    extractor = Extractor.load(run.extractor).graph(["rgb"])
    schema = RecordSchema.from_config(config.data)
    images = ServingModule(classifier, schema, extractor=extractor).signatures()["images"]
    jpeg = next(iter(videos.values()))[0]
    small = tf.io.encode_jpeg(np.zeros((42, 51, 3), np.uint8)).numpy()
    png = tf.io.encode_png(np.zeros((48, 64, 3), np.uint8)).numpy()
    bomb = png[:16] + b"\xff\xff\xff\xfe\x00\x00\x70\x00" + png[24:]
    for rows, message in (
        ([[jpeg, b"GIF89a"]], r"must be JPEG or PNG files\. .*\[video, frame\]:.*\[\[0 1\]\]"),
        ([[jpeg], [b""]], r"each video must have a frame\. .*\[1 0\]"),
        ([[jpeg, b"", jpeg]], "empty strings must come after the last frame"),
        ([[jpeg, small]], r"at least 52 x 42 .*\[\[0 1\]\].*\[\[42 51\]\]"),
        ([[png, bomb]], r"at most 16777216 pixels.*\[\[0 1\]\].*\[\[28672 4294967294\]\]"),
        ([[jpeg, png[:20]]], r"must be JPEG or PNG files\. .*\[\[0 1\]\]"),
        ([[jpeg, jpeg[:200]]], "(?i)jpeg"),
        ([[jpeg, png[:60]]], "(?i)png"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            images(images=tf.constant(rows))
    gray = tf.io.encode_jpeg(np.full((48, 64, 1), 90, np.uint8)).numpy()
    assert images(images=tf.constant([[gray]]))["predictions"].shape == (1, 6)


def test_an_extractor_that_cannot_be_exported_is_said_in_a_line(tmp_path, capsys):
    run, config = make_run(tmp_path / "run", ("rgb",))
    path = run.extractor / "extractor.json"
    whole = json.loads(path.read_text())
    shutil.copytree(run.extractor, tmp_path / "kept")

    # Not a model of Keras.
    model = keras.saving.load_model(run.extractor / "picture.keras")
    model.export(run.extractor / "saved", format="tf_saved_model", verbose=False)
    digest = digest_of_path(run.extractor / "saved")
    changes = {"kind": "saved_model", "path": str(run.extractor / "saved"), "copy": None}
    whole["picture"] |= {**changes, "sha256": digest}
    path.write_text(json.dumps(whole))
    capsys.readouterr()  # What the export of the model itself prints.
    assert exporting.graph_extractor(config, run.extractor) is None
    [line] = capsys.readouterr().err.splitlines()
    assert "no signature images" in line and "picture.keras is of the kind saved_model" in line

    # The weights are elsewhere.
    shutil.rmtree(run.extractor)
    shutil.copytree(tmp_path / "kept", run.extractor)
    (run.extractor / "picture.keras").unlink()
    assert exporting.graph_extractor(config, run.extractor) is None
    assert "picture.keras is missing" in capsys.readouterr().err
