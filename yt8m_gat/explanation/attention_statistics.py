"""Statistics of attention maps, over a whole set and over one clip."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# (name of the level, maps [B, N, T, K] as the layer returns them) -> the same as [B, N, T, T].
LayOut = Callable[[str, np.ndarray], np.ndarray]
# Feature -> level -> maps, as in `ModelOutputs.attention_maps`.
AttentionMaps = Mapping[str, Mapping[str, Any]]

GLOBAL = "global"
# Largest side of a stored map: it is still readable, and 60 x 60 = 3,600 numbers fit a file.
MAX_MAP_SIZE = 60
_DIGITS = 4


def mean_maps(attention_maps: AttentionMaps, lay_out: LayOut) -> dict[str, dict[str, np.ndarray]]:
    """Averages the maps over the heads, which leaves one weight per pair of frames.

    Args:
        attention_maps: Feature -> level -> [B, N, T, K].
        lay_out: Brings the compact maps of local levels to [B, 1, T, T]
            (`yt8m_gat.layers.expand_attention_map`); the global level's have that form already.

    Returns:
        Feature -> level -> float32 [B, T, T].
    """
    laid_out = {}
    for feature, levels in attention_maps.items():
        laid_out[feature] = {}
        for level, maps in levels.items():
            mean = np.asarray(maps, np.float32).mean(axis=1, keepdims=True)
            mean = mean if level == GLOBAL else np.asarray(lay_out(level, mean))
            laid_out[feature][level] = mean[:, 0]
    return laid_out


def attention_profile(mean_map: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Returns the attention that each real frame receives: the mean over the rows of the map.

    Args:
        mean_map: [T, T], averaged over the heads.
        real: Bool [T], True = real frame.

    Returns:
        [n] over the n real frames; sums to 1 where the rows of the map do. For a local level
        these are the profiles of its segments in order, each divided by the number of segments.

    Reference: GAT, 4.3.1 ("we take mean over the rows of the 2D attention map").
    """
    return mean_map[np.ix_(real, real)].mean(axis=0, dtype=np.float64)


def resample_profile(profile: np.ndarray, num_bins: int) -> np.ndarray:
    """Resamples a profile over the relative position in the clip, in units of uniform attention.

    Frame t of n fills the interval [t / n, (t + 1) / n) of the clip evenly. Each of the `num_bins`
    equal parts of the clip gets the attention that falls into it, times `num_bins`: 1 everywhere
    for uniform attention, mean 1 for any profile that sums to 1, for any n.

    Args:
        profile: [n], n >= 1.
        num_bins: Parts of the clip.

    Returns:
        [num_bins].
    """
    received = np.concatenate([[0.0], np.cumsum(profile)])
    edges = np.linspace(0.0, len(profile), num_bins + 1)
    return num_bins * np.diff(np.interp(edges, np.arange(len(profile) + 1), received))


class AttentionProfiles:
    """Mean attention profile of each feature and level over the clips of a set.

    Clips differ in length, so profiles are averaged by relative position: see
    `resample_profile`. Each clip with real frames counts once.

    Args:
        lay_out: See `mean_maps`.
        num_bins: Parts of the clip; at most the frames of the longest clip, since a profile of
            ten frames in fifty parts is a staircase.

    Raises:
        ValueError: If `num_bins` is not positive.
    """

    def __init__(self, lay_out: LayOut, num_bins: int = 50) -> None:
        if num_bins < 1:
            raise ValueError(f"`num_bins` must be at least 1. Received: num_bins={num_bins}")
        self.lay_out = lay_out
        self.num_bins = num_bins
        self.num_clips = 0
        self._longest = 0
        self._sums: dict[str, dict[str, np.ndarray]] = {}

    def update(self, attention_maps: AttentionMaps, frame_mask: Any) -> None:
        """Adds the clips of a batch.

        Args:
            attention_maps: Feature -> level -> [B, N, T, K]; averaging over the heads beforehand
                (N = 1) saves the transfer of the others.
            frame_mask: Bool [B, T], True = real frame.
        """
        mask = np.asarray(frame_mask, bool)
        for feature, levels in mean_maps(attention_maps, self.lay_out).items():
            sums = self._sums.setdefault(feature, {})
            for level, maps in levels.items():
                total = sums.setdefault(level, np.zeros(self.num_bins))
                for mean_map, real in zip(maps, mask, strict=True):
                    if real.any():
                        profile = attention_profile(mean_map, real)
                        total += resample_profile(profile, self.num_bins)
        self.num_clips += int(mask.any(axis=1).sum())
        self._longest = max(self._longest, int(mask.sum(axis=1).max(initial=0)))

    def result(self) -> dict[str, dict[str, list[float]]]:
        """Returns feature -> level -> a mean per part of the clip; empty if there was no clip."""
        if not self.num_clips:
            return {}
        num_parts = min(self.num_bins, self._longest)
        shares = self.num_clips * self.num_bins
        return {
            feature: {
                level: _rounded(resample_profile(total / shares, num_parts))
                for level, total in sums.items()
            }
            for feature, sums in self._sums.items()
        }


def downsample_map(mean_map: np.ndarray, max_size: int = MAX_MAP_SIZE) -> np.ndarray:
    """Returns block means of a square map; the blocks differ in size by at most one frame.

    Args:
        mean_map: [n, n].
        max_size: Most blocks per side; a map that is not larger is returned as it is.
    """
    size = len(mean_map)
    if size <= max_size:
        return mean_map
    edges = np.arange(max_size) * size // max_size
    counts = np.diff([*edges, size])
    sums = np.add.reduceat(np.add.reduceat(mean_map, edges, axis=0), edges, axis=1)
    return sums / np.outer(counts, counts)


def clip_attention(
    attention_maps: AttentionMaps,
    frame_mask: Any,
    index: int,
    lay_out: LayOut,
    max_size: int = MAX_MAP_SIZE,
) -> dict[str, dict[str, dict[str, list]]]:
    """Returns profiles and global maps of one clip over its real frames, ready for JSON.

    Args:
        attention_maps: Feature -> level -> [B, N, T, K].
        frame_mask: Bool [B, T].
        index: The clip's index in the batch.
        lay_out: See `mean_maps`.
        max_size: See `downsample_map`.

    Returns:
        `{"profiles": {feature: {level: [n]}}, "maps": {feature: {"global": [[m] * m]}}}`, m =
        min(n, `max_size`); numbers are rounded to four digits. A feature without a global level
        has no map.

    Raises:
        ValueError: If the clip has no real frame.
    """
    real = np.asarray(frame_mask[index], bool)
    if not real.any():
        raise ValueError(f"clip {index} of the batch has no real frame: it has no attention")
    one_clip = {
        feature: {level: np.asarray(maps[index])[None] for level, maps in levels.items()}
        for feature, levels in attention_maps.items()
    }
    laid_out = mean_maps(one_clip, lay_out)
    return {
        "profiles": {
            feature: {
                level: _rounded(attention_profile(maps[0], real)) for level, maps in levels.items()
            }
            for feature, levels in laid_out.items()
        },
        "maps": {
            feature: {
                GLOBAL: [
                    _rounded(row)
                    for row in downsample_map(levels[GLOBAL][0][np.ix_(real, real)], max_size)
                ]
            }
            for feature, levels in laid_out.items()
            if GLOBAL in levels
        },
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
