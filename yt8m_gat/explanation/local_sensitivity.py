"""Local sensitivity: how far output frames depend on nearby input frames, and on the rest."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# (features: {name: [B, T, ...]}, frame_mask [B, T]) -> contextual frames [B, T, ...].
FramesFn = Callable[[Mapping[str, tf.Tensor], Any], tf.Tensor]


class LocalSensitivity:
    """The local share of the gradients of output frames with respect to input frames, over clips.

    ```
    G[i, j] = || d Y_i / d X_j ||_F
    S_i = avg of G[i, j] over N_i / (avg of G[i, j] over N_i + avg of G[i, j] outside N_i)
    N_i = the real frames j with |i - j| <= neighbourhood
    ```

    Y_i [F] is a contextual frame before pooling, X_j [D] an input frame of one feature, so their
    gradient is a Jacobian [F, D]; its norm is taken as Frobenius'. Of raw clips, Y_i is the last
    map [H, W, C] of a frame and X_j its pixels [S, S, 3], both as vectors. S_i is 1 if the output
    depends only on its neighbourhood, 1/2 if it depends on near and far frames alike. S of a clip
    is the mean over its real output frames (those that `max_frames` leaves), S of a set over its
    clips.

    A row of G is estimated from `probes` vector-Jacobian products with random signs v in {-1, 1}^F:
    E ||v^T J||^2 = ||J||_F^2, so G is the root of their mean, a little low on average, less so with
    more probes (or a higher rank of J). `exact` takes the F unit vectors instead.

    Masking: padding is no output frame, no neighbour and not outside; a frame with nothing outside
    its neighbourhood, or without any gradient, has no S and is left out, and so is a clip of such
    frames.

    Cost: probes * output frames forward and backward passes per clip, `copies` of them at once: a
    batch holds copies of the clip, and one backward pass gives a row of G for each copy.

    Args:
        frames_fn: `(features, frame_mask) -> contextual frames [B, T, F]`, or maps [B, T, H, W, C],
            in inference mode and for each clip of a batch by itself
            (`VideoClassifier.forward(...).frames`).
        neighbourhood: Frames to each side that count as local, as does the frame itself.
        probes: Random vectors per output frame.
        exact: Whether the F unit vectors replace the random ones.
        max_frames: Output frames per clip, spread evenly over it; None: all.
        copies: Passes at once.
        seed: Seed of the random vectors.

    Raises:
        ValueError: If a number is too small.

    Reference: "Leveraging Local Temporal Information for Multimodal Scene Classification", eq. 14
    and fig. 4, which leave open the neighbourhood's size (10 seconds to each side by default) and
    the norm.
    """

    def __init__(
        self,
        frames_fn: FramesFn,
        neighbourhood: int = 10,
        probes: int = 1,
        exact: bool = False,
        max_frames: int | None = None,
        copies: int = 32,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("neighbourhood", neighbourhood, 0),
            ("probes", probes, 1),
            ("max_frames", 1 if max_frames is None else max_frames, 1),
            ("copies", copies, 1),
        ):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
        self.frames_fn = frames_fn
        self.neighbourhood = neighbourhood
        self.probes = probes
        self.exact = exact
        self.max_frames = max_frames
        self.copies = copies
        self._random = np.random.default_rng(seed)
        self._shares: dict[str, list[float]] = {}
        self._squared_rows = tf.function(
            self._squared_row_norms, reduce_retracing=True, autograph=False
        )
        self._num_outputs = 0

    def gradient_norms(
        self, features: Mapping[str, Any], frame_mask: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Computes rows of G for one clip.

        Args:
            features: {name: float [T, D]}, or pixels [T, S, S, 3].
            frame_mask: Bool [T], True = real frame.

        Returns:
            The output frames i as indices among the n real ones, int [m], and {name: G [m, n]}.
        """
        real = np.flatnonzero(np.asarray(frame_mask, bool))
        # Frames after the last real one would only cost time.
        length = int(real[-1]) + 1 if len(real) else 0
        clip = {name: tf.convert_to_tensor(value)[:length] for name, value in features.items()}
        mask = tf.convert_to_tensor(frame_mask)[:length]
        rows = np.arange(len(real))
        if self.max_frames is not None and self.max_frames < len(real):
            # The middle of each of `max_frames` equal parts.
            rows = ((2 * np.arange(self.max_frames) + 1) * len(real)) // (2 * self.max_frames)
        if not len(rows):
            return rows, {name: np.zeros((0, 0)) for name in clip}
        if not self._num_outputs:
            frames = self.frames_fn({k: v[tf.newaxis] for k, v in clip.items()}, mask[tf.newaxis])
            self._num_outputs = math.prod(frames.shape[2:])
        per_row = self._num_outputs if self.exact else self.probes
        squares = {name: np.zeros((len(rows), len(real))) for name in clip}
        places = np.repeat(np.arange(len(rows)), per_row)
        for begin in range(0, len(places), self.copies):
            chunk = np.arange(begin, min(begin + self.copies, len(places)))
            squared_norms = self._squared_rows(
                clip, mask, tf.constant(real[rows[places[chunk]]]), self._vectors(chunk, per_row)
            )
            for name, values in squared_norms.items():
                np.add.at(squares[name], places[chunk], values.numpy()[:, real])
        scale = 1.0 if self.exact else 1.0 / self.probes
        return rows, {name: np.sqrt(scale * square) for name, square in squares.items()}

    def update(self, features: Mapping[str, Any], frame_mask: Any) -> None:
        """Adds the clips of a batch.

        Args:
            features: {name: float [B, T, D]}, preprocessed, or pixels [B, T, S, S, 3].
            frame_mask: Bool [B, T], True = real frame.
        """
        for index in range(int(frame_mask.shape[0])):
            clip = {name: value[index] for name, value in features.items()}
            rows, norms = self.gradient_norms(clip, frame_mask[index])
            for name, matrix in norms.items():
                share = local_share(matrix, rows, self.neighbourhood)
                if share is not None:
                    self._shares.setdefault(name, []).append(share)

    def result(self) -> dict[str, dict[str, float | int]]:
        """Returns feature -> `S`, its `deviation` (0 for one clip), `neighbourhood`, `num_videos`.

        A feature is absent if no clip had an S, for example if all were shorter than the
        neighbourhood.
        """
        return {
            name: {
                "S": float(np.mean(shares)),
                "deviation": float(np.std(shares, ddof=1)) if len(shares) > 1 else 0.0,
                "neighbourhood": self.neighbourhood,
                "num_videos": len(shares),
            }
            for name, shares in self._shares.items()
        }

    def _vectors(self, chunk: np.ndarray, per_row: int) -> tf.Tensor:
        """Returns one vector [F] for each index of a chunk: unit vectors, or random signs."""
        if self.exact:
            return tf.one_hot(chunk % per_row, self._num_outputs)
        signs = self._random.integers(0, 2, (len(chunk), self._num_outputs))
        return tf.constant(2.0 * signs - 1.0, tf.float32)

    def _squared_row_norms(
        self,
        clip: dict[str, tf.Tensor],
        frame_mask: tf.Tensor,
        outputs: tf.Tensor,
        vectors: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Returns ||v_r^T dY_i(r) / dX_j||^2 as [R, T] per feature, with a copy r per output r."""
        num_copies = tf.shape(vectors)[0]
        features = {
            name: tf.repeat(value[tf.newaxis], num_copies, axis=0) for name, value in clip.items()
        }
        mask = tf.repeat(frame_mask[tf.newaxis], num_copies, axis=0)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            frames = self.frames_fn(features, mask)
            of_interest = tf.gather(frames, outputs, axis=1, batch_dims=1)
            rows = tf.reshape(of_interest, (num_copies, self._num_outputs))
            products = tf.reduce_sum(rows * tf.cast(vectors, frames.dtype))
        gradients = tape.gradient(
            products, features, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return {
            name: tf.reduce_sum(
                tf.square(tf.cast(gradient, tf.float32)), axis=range(2, gradient.shape.rank)
            )
            for name, gradient in gradients.items()
        }


def local_share(
    gradient_norms: np.ndarray, output_frames: np.ndarray, neighbourhood: int
) -> float | None:
    """Returns the mean S_i of a clip (eq. 14), or None if no output frame has one.

    Args:
        gradient_norms: G [m, n], a row per output frame.
        output_frames: Int [m], the frame index i of each row.
        neighbourhood: Frames to each side that count as local.
    """
    distance = np.abs(output_frames[:, None] - np.arange(gradient_norms.shape[1])[None, :])
    near = distance <= neighbourhood
    shares = []
    for norms, local in zip(gradient_norms, near, strict=True):
        if local.all():
            continue
        inside, outside = norms[local].mean(), norms[~local].mean()
        if inside + outside > 0:
            shares.append(inside / (inside + outside))
    return math.fsum(shares) / len(shares) if shares else None
