"""Profiles and maps against sums written out, for clips of any length."""

import keras
import numpy as np
import pytest

from yt8m_gat.explanation.attention_statistics import (
    AttentionProfiles,
    attention_profile,
    clip_attention,
    downsample_map,
    resample_profile,
)
from yt8m_gat.layers import AttentionLevel, dense_attention_map, expand_attention_map
from yt8m_gat.models.registry import build_model


def nothing_to_lay_out(level, maps):
    raise AssertionError(f"{level} was laid out: {maps.shape}")


def lay_out(level, maps):
    return expand_attention_map(maps, AttentionLevel.parse(level))


def random_maps(rng, mask, heads=2):
    weights = rng.random((len(mask), heads, mask.shape[1], mask.shape[1]))
    weights *= mask[:, None, None, :] * mask[:, None, :, None]
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)


@pytest.mark.parametrize("num_frames", [1, 3, 5, 7, 20])
def test_uniform_attention_is_one_everywhere(num_frames):
    profile = np.full(num_frames, 1 / num_frames)
    np.testing.assert_allclose(resample_profile(profile, 5), 1.0)


def test_bins_take_the_share_of_each_frame_that_falls_into_them():
    # 3 frames over 2 bins: the middle one is halved. 2 * (.5 + .1), 2 * (.1 + .3).
    np.testing.assert_allclose(resample_profile(np.array([0.5, 0.2, 0.3]), 2), [1.2, 0.8])
    # 2 frames over 4 bins: each fills two.
    np.testing.assert_allclose(resample_profile(np.array([0.9, 0.1]), 4), [1.8, 1.8, 0.2, 0.2])


def test_profile_is_the_mean_over_real_rows():
    mean_map = np.array([[0.7, 0.3, 9.0], [0.1, 0.9, 9.0], [9.0, 9.0, 9.0]])
    profile = attention_profile(mean_map, np.array([True, True, False]))
    np.testing.assert_allclose(profile, [0.4, 0.6])


def test_accumulated_profiles_do_not_depend_on_batches_or_heads():
    rng = np.random.default_rng(0)
    mask = np.arange(6) < np.array([6, 2, 0, 5])[:, None]
    maps = random_maps(rng, mask)
    whole = AttentionProfiles(nothing_to_lay_out, num_bins=4)
    whole.update({"rgb": {"global": maps}}, mask)
    cut = AttentionProfiles(nothing_to_lay_out, num_bins=4)
    for part in (slice(0, 1), slice(1, 4)):
        cut.update({"rgb": {"global": maps[part].mean(1, keepdims=True)}}, mask[part])
    assert whole.num_clips == 3  # The clip without frames does not count.
    expected = np.zeros(4)
    for clip in (0, 1, 3):
        n = mask[clip].sum()
        weight = maps[clip].mean(0)[:n, :n].mean(0)
        for b in range(4):
            for t in range(n):
                overlap = min((b + 1) / 4, (t + 1) / n) - max(b / 4, t / n)
                expected[b] += 4 * n * weight[t] * max(overlap, 0) / 3
    np.testing.assert_allclose(whole.result()["rgb"]["global"], expected, rtol=1e-3)
    np.testing.assert_allclose(cut.result()["rgb"]["global"], expected, rtol=1e-3)
    np.testing.assert_allclose(np.mean(expected), 1.0)


def test_local_levels_are_laid_out():
    keras.utils.set_random_seed(0)
    model = build_model(
        "GAT", {"rgb": 8}, 3, 9, local_masks=("bd4", "td4x2"), hidden_size=4, num_heads=2
    )
    rng = np.random.default_rng(1)
    features = {"rgb": rng.normal(size=(2, 9, 8)).astype("float32")}
    mask = np.arange(9) < np.array([9, 5])[:, None]
    maps = model.forward(features, mask).attention_maps
    profiles = AttentionProfiles(lay_out, num_bins=9)
    profiles.update(maps, mask)
    found = clip_attention(maps, mask, 0, lay_out)
    block = model.blocks[0]
    query, key, _ = block.attention._project(model.positional_encoding(features["rgb"]))
    for name in ("global", "bd4", "td4x2"):
        dense = dense_attention_map(query, key, AttentionLevel.parse(name), mask)
        expected = np.asarray(dense)[0].mean(0).mean(0)
        np.testing.assert_allclose(found["profiles"]["rgb"][name], expected, rtol=1e-3, atol=1e-6)
        assert np.mean(profiles.result()["rgb"][name]) == pytest.approx(1.0, rel=1e-3)
    assert set(found["maps"]["rgb"]) == {"global"}


def test_blocks_are_means():
    rng = np.random.default_rng(2)
    square = rng.random((7, 7))
    small = downsample_map(square, 3)
    parts = [slice(0, 2), slice(2, 4), slice(4, 7)]
    expected = [[square[rows, columns].mean() for columns in parts] for rows in parts]
    np.testing.assert_allclose(small, expected)
    assert downsample_map(square, 7) is square


def test_one_clip_has_its_real_frames_alone():
    mask = np.arange(5) < np.array([5, 3])[:, None]
    maps = random_maps(np.random.default_rng(3), mask)
    found = clip_attention({"rgb": {"global": maps}}, mask, 1, nothing_to_lay_out)
    assert np.shape(found["maps"]["rgb"]["global"]) == (3, 3)
    np.testing.assert_allclose(found["maps"]["rgb"]["global"], maps[1].mean(0)[:3, :3], rtol=1e-3)
    assert len(found["profiles"]["rgb"]["global"]) == 3
    assert clip_attention({}, mask, 0, lay_out) == {"profiles": {}, "maps": {}}


def test_refuses_what_has_no_profile():
    with pytest.raises(ValueError, match="num_bins=0"):
        AttentionProfiles(lay_out, 0)
    with pytest.raises(ValueError, match="clip 0 of the batch has no real frame"):
        clip_attention({}, np.zeros((1, 3), bool), 0, lay_out)
    assert AttentionProfiles(lay_out).result() == {}
