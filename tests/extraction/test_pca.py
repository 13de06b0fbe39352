import numpy as np
import pytest
from sklearn.decomposition import PCA as BatchPCA
from sklearn.preprocessing import StandardScaler

from yt8m_gat.config import ConfigError
from yt8m_gat.data.quantization import dequantize, quantize, quantize_as_youtube8m
from yt8m_gat.extraction import projection
from yt8m_gat.extraction.pca import StreamingMoments


def frames(num=200, size=12, offset=0.0):
    rng = np.random.default_rng(7)
    return rng.normal(size=(num, size)) @ rng.normal(size=(size, size)) + offset


def streamed(x, cuts, **options):
    moments = StreamingMoments(x.shape[1], **options)
    for part in np.split(x, cuts):
        moments.update(part)
    return moments


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streaming_pca_is_the_batch_pca_of_scikit_learn(offset):
    x = frames(offset=offset)
    # Batches of 0, 1 and many frames.
    pca = streamed(x, [0, 1, 40, 41, 150]).pca(5)
    batch = BatchPCA(5, svd_solver="full").fit(x)
    np.testing.assert_allclose(pca.mean, batch.mean_, rtol=1e-12)
    np.testing.assert_allclose(pca.eigenvalues, batch.explained_variance_, rtol=1e-8)
    signs = np.sign((pca.eigenvectors * batch.components_).sum(axis=1))
    np.testing.assert_allclose(pca.eigenvectors * signs[:, None], batch.components_, atol=1e-8)
    # Eigenvectors have no sign of their own; ours have a positive largest entry.
    rows = np.arange(5)
    assert (pca.eigenvectors[rows, np.abs(pca.eigenvectors).argmax(axis=1)] > 0).all()


def test_whitening_divides_by_the_root_of_the_eigenvalue_and_1e_4():
    x = np.array([[0.0, 1.0], [0.0, -1.0], [0.1, 0.0], [-0.1, 0.0]])
    pca = streamed(x, [2]).pca(2)
    # Variances 2 / 3 and 0.02 / 3; the components are the axes.
    np.testing.assert_allclose(pca.eigenvalues, [2 / 3, 0.02 / 3])
    np.testing.assert_allclose(
        pca.whiten(np.array([[0.1, 1.0]])),
        [[1 / np.sqrt(2 / 3 + 1e-4), 0.1 / np.sqrt(0.02 / 3 + 1e-4)]],
    )


def test_variances_without_the_covariance():
    x = frames()
    scaler = StandardScaler().fit(x)
    moments = streamed(x, [3, 77], with_covariance=False)
    np.testing.assert_allclose(moments.mean, scaler.mean_, rtol=1e-10)
    np.testing.assert_allclose(moments.covariance, scaler.var_ * 200 / 199, rtol=1e-10)


def test_too_few_frames_or_too_many_components():
    with pytest.raises(ValueError, match=r"at least 2 frames\. Received: 1"):
        _ = streamed(frames(1), []).covariance
    with pytest.raises(ValueError, match=r"components must be 1 to 4: 5 frames of 12 values"):
        streamed(frames(5), []).pca(5)
    with pytest.raises(ConfigError, match=r"cannot be fitted: .*Give more videos"):
        projection.fitted(streamed(frames(5), []), 5)


def test_standardized_bytes():
    x = frames()
    x[:, 3] = 5.0  # A value that never changes.
    fitted = projection.fitted(streamed(x, [9], with_covariance=False))
    expected = (x - x.mean(axis=0)) / np.where(np.arange(12) == 3, 1.0, x.std(axis=0, ddof=1))
    np.testing.assert_array_equal(fitted(x), quantize(expected))
    assert np.abs(dequantize(fitted(x)) - np.clip(expected, -2, 2)).max() <= 2.1 / 255


@pytest.mark.parametrize("num_components", [0, 4])
def test_constants_are_saved_and_read_with_the_same_bytes(tmp_path, num_components):
    x = frames()
    fitted = (
        projection.fitted(streamed(x, [9]), num_components)
        if num_components
        else (projection.fitted(streamed(x, [9], with_covariance=False)))
    )
    for name in ("one.npz", "two.npz"):
        projection.save(fitted, tmp_path / name)
    loaded = projection.load(tmp_path / "one.npz")
    assert loaded.size == fitted.size == (num_components or 12)
    np.testing.assert_array_equal(loaded(x), fitted(x))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_other_files_are_no_constants(tmp_path):
    path = tmp_path / "picture.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"picture\.npz must hold the constants"):
        projection.load(path)
    np.savez(path, mean=np.zeros(3), deviation=np.zeros(2))
    with pytest.raises(ConfigError, match=r"picture\.npz must hold the constants"):
        projection.load(path)


def test_official_bytes():
    levels = np.arange(256)
    middle = levels * 4 / 255 - 2
    np.testing.assert_array_equal(quantize_as_youtube8m(middle), levels)
    np.testing.assert_array_equal(quantize_as_youtube8m(middle + 0.4 * 4 / 255)[:-1], levels[:-1])
    np.testing.assert_array_equal(
        quantize_as_youtube8m(middle + 0.9 * 4 / 255, truncate=True)[:-1], levels[:-1]
    )
    np.testing.assert_array_equal(quantize_as_youtube8m(np.array([-9.0, 9.0])), [0, 255])
    # Half a level away from what our reader makes of the byte, at most.
    assert np.abs(dequantize(levels.astype(np.uint8)) - middle).max() < 0.51 * 4 / 255
