"""Models of pictures and sound, loaded from what `--picture` and `--sound` name."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_models

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.config import FeatureConfig
from yt8m_gat.extraction.loading import kind_of_path
from yt8m_gat.extraction.log_mel import log_mel
from yt8m_gat.extraction.picture import picture_model
from yt8m_gat.extraction.projection import OfficialPicture, OfficialSound
from yt8m_gat.extraction.sound import sound_model
from yt8m_gat.extraction.vggish import load_pca, official_files

MODELS = Path(__file__).resolve().parents[3] / "shared/data/models"
needs_models = pytest.mark.skipif(
    not MODELS.is_dir(), reason=f"needs the models of {MODELS}, which are not in this checkout"
)


def picture(path, **options):
    config = FeatureConfig(kind=kind_of_path(path), model=Path(path).name, **options)
    return picture_model(config, path)


def sound(path, **options):
    config = FeatureConfig(kind=kind_of_path(path), model=Path(path).name, **options)
    return sound_model(config, path, 1.0)


def frames(num=3, height=8, width=8):
    return np.random.default_rng(5).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("write", [tiny_models.saved, tiny_models.saved_model, tiny_models.tflite])
def test_models_of_frames_in_floats(folder, write):
    path = write(tiny_models.mean_color(), folder)
    x = frames()
    model = picture(path)
    assert (model.image_size, model.size, model.gives_bytes) == ((8, 8), 3, False)
    np.testing.assert_allclose(model.call(x), x.mean(axis=(1, 2)), rtol=1e-5)
    # Black is -1 and white 1.
    scaled = picture(path, value_range=(-1.0, 1.0))
    np.testing.assert_allclose(scaled.call(x), x.mean(axis=(1, 2)) / 127.5 - 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"--picture_size must be that of .*\[8, 8\]"):
        picture(path, image_size=(9, 9))


def test_a_model_of_bytes(folder):
    x = frames()
    model = picture(tiny_models.tflite(tiny_models.mean_color(), folder, as_bytes=True))
    assert (model.image_size, model.size, model.gives_bytes) == ((8, 8), 3, True)
    values = model.call(x)
    assert values.dtype == np.uint8
    np.testing.assert_allclose(values, x.mean(axis=(1, 2)), atol=1.5)


def test_the_embedding_is_a_layer_or_a_tensor_that_is_named(folder):
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(inputs)
    scores = keras.layers.Dense(5, name="scores")(pooled)
    model = keras.Model(inputs, scores)
    path = tiny_models.saved(model, folder)
    x = frames()
    assert picture(path).size == 5
    np.testing.assert_allclose(picture(path, output="pool").call(x), x.mean((1, 2)), rtol=1e-5)
    with pytest.raises(ConfigError, match=r"one of its layers, .*pool, scores\. Received: x"):
        picture(path, output="x")
    lite = tiny_models.tflite(model, folder)
    assert picture(lite).size == 5
    with pytest.raises(ConfigError, match="one of its tensors"):
        picture(lite, output="no such tensor")


def test_an_open_size_is_chosen(folder):
    inputs = keras.Input((None, None, 3))
    path = tiny_models.saved(
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)), folder
    )
    assert picture(path).image_size == (224, 224)
    assert picture(path, image_size=(10, 12)).image_size == (10, 12)


def test_maps_are_pooled(folder):
    inputs = keras.Input((8, 8, 3))
    path = tiny_models.saved(keras.Model(inputs, keras.layers.Rescaling(2.0)(inputs)), folder)
    x = frames()
    np.testing.assert_allclose(picture(path).call(x), 2 * x.mean(axis=(1, 2)), rtol=1e-5)


def test_keras_applications_with_weights_of_a_file(folder):
    options = {"include_top": False, "pooling": "avg", "input_shape": (32, 32, 3)}
    oracle = keras.applications.VGG16(weights=None, **options)
    path = str(folder / "vgg16.weights.h5")
    oracle.save_weights(path)
    config = FeatureConfig(kind="application", model="VGG16", image_size=(32, 32))
    model = picture_model(config, path)
    x = frames(2, 32, 32)
    # VGG16's own preprocessing: blue, green, red, minus ImageNet's means.
    prepared = x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    assert (model.size, model.image_size, model.sha256) == (512, (32, 32), None)
    expected = oracle(prepared, training=False).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(model.call(x), expected, rtol=1e-3, atol=1e-4)
    (folder / "other.weights.h5").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"got no weights from --picture_weights=.*Remedy"):
        picture_model(config, str(folder / "other.weights.h5"))
    with pytest.raises(ConfigError, match=r"one of keras\.applications: ConvNeXt.*'Inception'"):
        picture_model(FeatureConfig(kind="application", model="Inception"), None)


def test_wrong_models_are_refused(folder):
    inputs = keras.Input((4,))
    path = tiny_models.saved(keras.Model(inputs, keras.layers.Dense(2)(inputs)), folder)
    with pytest.raises(ConfigError, match=r"frames \[height, width, 3\]\. Received: \[4\]"):
        picture(path)
    for name in ("x.keras", "x.tflite"):
        (folder / name).write_bytes(b"nothing")
        with pytest.raises(ConfigError, match=rf"{name} cannot be loaded as a model"):
            picture(str(folder / name))
    with pytest.raises(ConfigError, match="There is no such file"):
        picture(str(folder / "gone.keras"))


def test_a_keras_file_brings_no_code_of_its_own(folder):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Lambda(lambda x: x, output_shape=(8, 8, 3))(inputs)
    path = tiny_models.saved(keras.Model(inputs, outputs), folder)
    with pytest.raises(ConfigError, match="cannot be loaded as a model"):
        picture(path)


def test_sound_models_of_waveforms_and_of_patches(folder):
    x = np.random.default_rng(2).normal(0, 0.1, (3, 560)).astype(np.float32)
    inputs = keras.Input((560,))
    model = keras.Model(inputs, keras.layers.Rescaling(3.0)(inputs))
    for write in (tiny_models.saved, tiny_models.saved_model, tiny_models.tflite):
        loaded = sound(write(model, folder))
        assert (loaded.window, loaded.size) == (560, 560)
        np.testing.assert_allclose(loaded.call(x), 3 * x, rtol=1e-5)
    for shape in ((2, 64), (2, 64, 1)):
        inputs = keras.Input(shape)
        patches = keras.layers.Reshape((2, 64))(inputs)
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(patches))
        loaded = sound(tiny_models.saved(model, folder))
        # Two log-mel frames.
        assert (loaded.window, loaded.size) == (560, 64)
        np.testing.assert_allclose(loaded.call(x), log_mel(x).mean(axis=1), atol=1e-5)
    inputs = keras.Input((None,))
    path = tiny_models.saved(keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs)), folder)
    with pytest.raises(ConfigError, match=r"of a fixed length\. Received: \[None\]"):
        sound(path)


def test_the_official_picture_is_its_formula(tmp_path):
    constants = tiny_models.inception(tmp_path)
    model = picture_model(FeatureConfig(kind="youtube8m", model="youtube8m"), str(tmp_path))
    assert (model.image_size, model.size) == (None, 2048)
    # Flat frames, which resizing does not change.
    x = np.broadcast_to(frames(4, 1, 1), (4, 16, 24, 3))
    values = model.call(x)
    np.testing.assert_allclose(values, [np.resize(frame[0, 0], 2048) for frame in x], rtol=1e-5)
    project = OfficialPicture.load(tmp_path)
    # google/youtube-8m, a frame at a time.
    for frame, row in zip(values, project(values), strict=True):
        features = (frame - constants["mean"][:, 0]).reshape(1, 2048)
        features = features.dot(constants["eigenvecs"].T[:, :1024]).reshape(1024)
        features /= np.sqrt(constants["eigenvals"][:1024, 0] + 1e-4)
        features = (np.clip(features, -2, 2) + 2) * (255 / 4)
        differences = row.astype(int) - [round(float(value)) for value in features]
        # Sums of 2,048 floats in another order.
        assert np.abs(differences).max() <= 1 and (differences != 0).mean() < 0.01
    assert 20 < project(values).std() < 120


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("mean.npy", np.zeros((2048,), "f4"), r"mean\.npy .*\[2048, 1\]\. Received: .*\[2048\]"),
        ("mean.npy", np.zeros((2049, 1), "f4"), r"mean\.npy .*\[2048, 1\]"),
        ("eigenvals.npy", np.zeros((1000, 1), "f4"), r"eigenvals\.npy .*\[1024, 1\]"),
        ("eigenvecs.npy", np.zeros((2048, 1024), "f4"), r"eigenvecs\.npy .*\[1024, 2048\]"),
        ("eigenvecs.npy", np.zeros((1024, 2048), "i4"), r"floats .*Received: int32"),
        ("eigenvecs.npy", None, r"must hold .*Missing: eigenvecs\.npy"),
    ],
)
def test_official_constants_of_other_shapes_are_refused(tmp_path, name, array, message):
    tiny_models.inception(tmp_path)
    (tmp_path / name).unlink()
    if array is not None:
        np.save(tmp_path / name, array)
    with pytest.raises(ConfigError, match=message):
        OfficialPicture.load(tmp_path)


def test_another_graph_is_refused(tmp_path):
    config = FeatureConfig(kind="youtube8m", model="youtube8m")
    with pytest.raises(ConfigError, match=r"must hold classify_image_graph_def\.pb"):
        picture_model(config, str(tmp_path))
    (tmp_path / "classify_image_graph_def.pb").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"must be Inception's graph, with DecodeJpeg:0"):
        picture_model(config, str(tmp_path))


def test_the_pca_of_vggish_by_hand(tmp_path):
    rng = np.random.default_rng(1)
    mean, matrix = rng.normal(size=(128, 1)), rng.normal(size=(128, 128))
    path = tmp_path / "vggish_pca_params.npz"
    np.savez(path, pca_means=mean, pca_eigen_vectors=matrix)
    embeddings = rng.normal(size=(5, 128)).astype(np.float32) / 8
    projected = np.dot(matrix, embeddings.T - mean).T
    expected = ((np.clip(projected, -2, 2) + 2) * (255 / 4)).astype(np.uint8)
    np.testing.assert_array_equal(OfficialSound(*load_pca(path))(embeddings), expected)
    np.savez(path, pca_means=mean[:5], pca_eigen_vectors=matrix)
    with pytest.raises(ConfigError, match=r"pca_means \[128\] .*Received: pca_means \(5, 1\)"):
        load_pca(path)
    with pytest.raises(ConfigError, match=r"Missing: vggish_model\.ckpt"):
        official_files(tmp_path)


@needs_models
def test_the_official_pca_of_vggish():
    mean, matrix = load_pca(MODELS / "vggish_pca_params.npz")
    # Its rows are orthogonal directions, each divided by a deviation: a whitening matrix.
    norms = np.linalg.norm(matrix, axis=1)
    directions = matrix / norms[:, None]
    np.testing.assert_allclose(directions @ directions.T, np.eye(128), atol=1e-5)
    assert (np.diff(norms) > -1e-6 * norms[1:]).all()
    project = OfficialSound(mean, matrix)
    # The mean is the middle of the range; one deviation along a direction adds 255 / 4 levels.
    np.testing.assert_array_equal(project(mean[None]), np.full((1, 128), 127))
    x = mean + directions[3] / norms[3]
    assert project(x[None])[0, 3] in (190, 191)


@needs_models
def test_real_models():
    mobilenet = picture(str(MODELS / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"))
    assert (mobilenet.image_size, mobilenet.size) == ((224, 224), 1024)
    assert mobilenet.gives_bytes
    yamnet = sound(str(MODELS / "yamnet.tflite"), output="global_average_pooling2d/Mean")
    assert (yamnet.window, yamnet.size, yamnet.gives_bytes) == (15_600, 1024, False)
    scores = sound(str(MODELS / "yamnet.tflite"))
    names = (MODELS / "yamnet_class_map.csv").read_text().splitlines()[1:]
    silence = scores.call(np.zeros((1, 15_600), np.float32))
    assert "Silence" in names[silence[0].argmax()]
