"""The norm balls that bound perturbations, and the steps inside them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks import draws

NORMS = ("l2", "linf")
SCOPES = ("frame", "example", "joint")

Tensors = dict[str, tf.Tensor]


def mask_frames(values: Mapping[str, Any], frame_mask: Any) -> Tensors:
    """Returns `values` with exactly 0 on padding.

    Args:
        values: Float [B, T, ...] per feature; [B, D] where `frame_mask` is None.
        frame_mask: Bool [B, T], True = real frame; None: nothing is padding.
    """
    tensors = {name: tf.convert_to_tensor(value) for name, value in values.items()}
    if frame_mask is None:
        return tensors
    # A multiplication would not do: NaN times 0 is NaN.
    real = tf.convert_to_tensor(frame_mask)
    return {
        name: tf.where(for_frames(real, value), value, tf.zeros_like(value))
        for name, value in tensors.items()
    }


def for_frames(values: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Adds axes of 1 to `values` [B, T], so that it broadcasts against `features` [B, T, ...]."""
    shape = tf.concat([tf.shape(values), tf.ones([features.shape.rank - 2], tf.int32)], axis=0)
    return tf.reshape(values, shape)


def require_gradients(gradients: Mapping[str, Any]) -> None:
    """Raises ValueError where a feature has no gradient: it would silently stay unperturbed."""
    missing = [name for name, gradient in gradients.items() if gradient is None]
    if missing:
        raise ValueError(
            "a perturbation needs a gradient by every feature. Received: None for "
            f"{', '.join(missing)}; leave out the features that the model does not use"
        )


def seed_pair(seed: Any, stream: Any = 0) -> tf.Tensor:
    """Returns a seed for the stateless random ops, int32 [2]; it differs for each `stream`.

    Eager mode and `tf.function` draw the same numbers from it; XLA's generator draws others.
    """
    return tf.stack([tf.cast(seed, tf.int32), tf.cast(stream, tf.int32)])


def normal_like(values: Mapping[str, Any], seed: tf.Tensor) -> Tensors:
    """Draws standard normal float32 noise in the shapes of `values`, from a stateless seed [2]."""
    return {
        name: draws.normal(tf.shape(value), tf.random.fold_in(seed, index))
        for index, (name, value) in enumerate(values.items())
    }


@dataclasses.dataclass(frozen=True)
class Ball:
    """All perturbations r with ||r|| <= epsilon.

    | norm | scope   | ||.|| is taken over                         | how many balls        |
    |------|---------|---------------------------------------------|-----------------------|
    | l2   | frame   | one real frame: its row [D] or its pixels   | one a frame, modality |
    | l2   | example | the real frames of one clip                 | one a clip, modality  |
    | l2   | joint   | the real frames of one clip, all modalities | one a clip            |
    | linf | any     | one entry (the scope changes nothing)       | -                     |

    With `shares`, the radius of a feature is that share of epsilon: the norm is that of
    r_m / share_m over the features m, so that one ball has radii for several units. A feature with
    a share of 0 never moves. The nearest point is then the nearest in that norm.

    `frame` is the reading of "the norm is taken across rows" (A-ART, eq. 4; GAT, eq. 3) that
    agrees with the papers' figures; the others are its alternatives.

    All methods take and return mappings of float [B, T, D], or [B, T, H, W, C] for frames of
    pixels (or [B, D] with `frame_mask` None), work in eager mode, `tf.function` and XLA, and return
    exactly 0 on padding, regardless of its values. Half precision is computed in float32.

    Args:
        norm: `l2` or `linf`.
        scope: `frame`, `example` or `joint`.
        shares: (feature, share of epsilon that is its radius) pairs; of the others it is epsilon.

    Raises:
        ValueError: If a name is unknown or a share is negative or infinite.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball
        >>> gradients = {"x": tf.constant([[[3.0, 4.0], [0.0, 0.0]]])}
        >>> Ball("l2").steepest_ascent(gradients, [[True, True]], epsilon=0.5)["x"].numpy()
        array([[[0.3, 0.4],
                [0. , 0. ]]], dtype=float32)
        >>> Ball("linf").project(gradients, [[True, True]], epsilon=0.5)["x"].numpy()
        array([[[0.5, 0.5],
                [0. , 0. ]]], dtype=float32)
    """

    norm: str = "l2"
    scope: str = "frame"
    shares: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(
                f"`norm` must be one of {', '.join(NORMS)}. Received: norm={self.norm!r}"
            )
        if self.scope not in SCOPES:
            raise ValueError(
                f"`scope` must be one of {', '.join(SCOPES)}. Received: scope={self.scope!r}"
            )
        # Keras stores a tuple as a list.
        object.__setattr__(self, "shares", tuple((name, share) for name, share in self.shares))
        for name, share in self.shares:
            if not 0 <= share < float("inf"):
                raise ValueError(
                    f"`shares` must be at least 0, and finite. Received: {share} of {name}"
                )

    def steepest_ascent(
        self, gradients: Mapping[str, Any], frame_mask: Any, epsilon: Any
    ) -> Tensors:
        """Returns the point of the ball at which a linear function of slope `gradients` is largest.

        l2: R = epsilon * G / ||G||_2 (GAT eq. 3; A-ART eq. 4); linf: R = epsilon * sign(G).

        G is divided by its largest entry before its norm is taken, and nothing is added to that
        norm: a gradient of 1e-30 gives the full step. Where G is 0, R is 0, and a gradient whose
        largest entry is denormal (< 1.2e-38 in float32, where hardware may flush it) counts as 0.
        Padding does not count in the norm.

        Args:
            gradients: Float [B, T, ...] per feature.
            frame_mask: Bool [B, T], or None.
            epsilon: Radius, in the units of the features.

        Returns:
            The perturbation per feature, in the gradients' types. Its norm is exactly `epsilon`
            (to rounding) wherever the gradient is not 0.

        Raises:
            ValueError: If a gradient is None, that is, if the loss does not depend on a feature.
        """
        require_gradients(gradients)
        # By u = r / share, a linear function of r with slope G is one of u with slope share * G.
        return self._onto_surface(self._times_shares(gradients), frame_mask, epsilon)

    def surface(self, direction: Mapping[str, Any], frame_mask: Any, epsilon: Any) -> Tensors:
        """Returns the point of the ball's surface in a direction; under linf, its corner there.

        Where all shares are equal, this is `steepest_ascent`. A direction of 0 gives 0.
        """
        return self._onto_surface(self._over_shares(direction), frame_mask, epsilon)

    def _onto_surface(self, values: Mapping[str, Any], frame_mask: Any, epsilon: Any) -> Tensors:
        masked = _widen(mask_frames(values, frame_mask))
        if self.norm == "linf":
            steps = {name: tf.sign(gradient) for name, gradient in masked.items()}
            lengths = {name: tf.ones([], step.dtype) for name, step in steps.items()}
        else:
            steps, lengths, _ = self._scaled(masked)
        return self._times_shares(
            {
                name: tf.cast(
                    tf.cast(epsilon, step.dtype) / lengths[name] * step, values[name].dtype
                )
                for name, step in steps.items()
            }
        )

    def project(self, perturbation: Mapping[str, Any], frame_mask: Any, epsilon: Any) -> Tensors:
        """Returns the nearest point of the ball: `perturbation` itself inside, else rescaled (l2)
        or clipped (linf)."""
        masked = _widen(mask_frames(self._over_shares(perturbation), frame_mask))
        if self.norm == "linf":
            projected = {}
            for name, value in masked.items():
                radius = tf.cast(epsilon, value.dtype)
                projected[name] = tf.clip_by_value(value, -radius, radius)
        else:
            scaled, lengths, largest = self._scaled(masked)
            projected = {}
            for name, value in masked.items():
                radius = tf.cast(epsilon, value.dtype)
                outside = lengths[name] * largest[name] > radius
                surface = scaled[name] * (radius / lengths[name])
                projected[name] = tf.where(outside, surface, value)
        return self._times_shares(
            {name: tf.cast(value, perturbation[name].dtype) for name, value in projected.items()}
        )

    def norm_of(self, perturbation: Mapping[str, Any], frame_mask: Any) -> tf.Tensor:
        """Returns the norm of a perturbation: float [B], the largest over a clip's balls."""
        masked = _widen(mask_frames(self._over_shares(perturbation), frame_mask))
        if self.norm == "linf":
            norms = {name: tf.abs(value) for name, value in masked.items()}
        else:
            # Row by row first in every scope, so that norms of several scopes share this step.
            _, lengths, largest = Ball("l2", "frame")._scaled(masked)
            norms = {name: lengths[name] * largest[name] for name in masked}
            if self.scope != "frame":
                _, lengths, largest = self._scaled(norms)
                norms = {name: lengths[name] * largest[name] for name in masked}
        worst = [
            tf.reduce_max(tf.reshape(norm, [tf.shape(norm)[0], -1]), axis=1)
            for norm in norms.values()
        ]
        return tf.reduce_max(tf.stack(worst), axis=0)

    def random_surface(
        self,
        features: Mapping[str, Any],
        frame_mask: Any,
        epsilon: Any,
        seed: tf.Tensor,
        alike: Any = False,
    ) -> Tensors:
        """Draws a point uniformly from the ball's surface (l2) or from its corners (linf).

        Args:
            features: Float [B, T, ...] per feature; only their shapes and types are used.
            frame_mask: Bool [B, T], or None.
            epsilon: Radius.
            seed: A stateless seed [2].
            alike: Bool, whether all frames of a clip get the same direction.
        """
        whole = dataclasses.replace(self, shares=())
        noise = normal_like(features, seed)
        if alike is not False:
            noise = {name: tf.where(alike, value[:, :1], value) for name, value in noise.items()}
        drawn = whole.surface(noise, frame_mask, epsilon)
        drawn = {name: tf.cast(value, features[name].dtype) for name, value in drawn.items()}
        return self._times_shares(drawn)

    def random_start(
        self,
        features: Mapping[str, Any],
        frame_mask: Any,
        epsilon: Any,
        seed: Any,
        draw: Any = 0,
    ) -> Tensors:
        """Draws a point uniformly from the ball.

        l2: a normal direction times epsilon * U^(1/n), n the number of real entries it spans.

        Args:
            features: Float [B, T, ...] per feature; only their shapes and types are used.
            frame_mask: Bool [B, T], or None.
            epsilon: Radius.
            seed: Integer; the same seed gives the same point.
            draw: Integer, for several points from one seed.
        """
        if self.norm == "linf":
            drawn = {}
            for index, (name, value) in enumerate(features.items()):
                key = tf.random.fold_in(seed_pair(seed, 2 * draw), index)
                unit = draws.uniform(tf.shape(value), key, minval=-1.0, maxval=1.0)
                drawn[name] = tf.cast(tf.cast(epsilon, unit.dtype) * unit, value.dtype)
            return mask_frames(self._times_shares(drawn), frame_mask)
        whole = dataclasses.replace(self, shares=())
        drawn = normal_like(features, seed_pair(seed, 2 * draw))
        direction = whole.surface(drawn, frame_mask, 1.0)
        ones = mask_frames(
            {name: tf.ones_like(value, tf.float32) for name, value in features.items()}, frame_mask
        )
        entries = self._total(ones)
        point = {}
        for index, (name, value) in enumerate(direction.items()):
            # One draw for each ball: under `joint` the modalities share it.
            key = tf.random.fold_in(
                seed_pair(seed, 2 * draw + 1), 0 if self.scope == "joint" else index
            )
            uniform = draws.uniform(tf.shape(entries[name]), key)
            radius = uniform ** (1.0 / tf.maximum(entries[name], 1.0))
            point[name] = tf.cast(epsilon, value.dtype) * radius * value
        return self._times_shares(
            {name: tf.cast(value, features[name].dtype) for name, value in point.items()}
        )

    def _times_shares(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        shares = dict(self.shares)
        return {
            name: value * tf.cast(shares[name], value.dtype) if name in shares else value
            for name, value in values.items()
        }

    def _over_shares(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns r_m / share_m; 0 where the share is 0."""
        shares = {name: 1.0 / share if share else 0.0 for name, share in self.shares}
        return {
            name: value * tf.cast(shares[name], value.dtype) if name in shares else value
            for name, value in values.items()
        }

    def _axes(self, value: tf.Tensor) -> list[int]:
        rank = value.shape.rank
        return list(range(min(2, rank - 1) if self.scope == "frame" else 1, rank))

    def _total(self, values: Tensors) -> Tensors:
        """Sums over each ball and keeps its axes as 1."""
        sums = {
            name: tf.reduce_sum(value, axis=self._axes(value), keepdims=True)
            for name, value in values.items()
        }
        if self.scope == "joint":
            total = tf.add_n(list(sums.values()))
            return dict.fromkeys(sums, total)
        return sums

    def _scaled(self, values: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """Returns values divided by their ball's largest entry, their l2 length, and that entry.

        All-zero (or denormal) balls give values 0, length 1, largest 0.
        """
        largest = {
            name: tf.reduce_max(tf.abs(value), axis=self._axes(value), keepdims=True)
            for name, value in values.items()
        }
        if self.scope == "joint":
            shared = tf.reduce_max(tf.stack(list(largest.values())), axis=0)
            largest = dict.fromkeys(largest, shared)
        scaled = {}
        for name, value in values.items():
            # NaN compares as False, so it stays visible in the result.
            zero = largest[name] < _smallest_normal(value.dtype)
            largest[name] = tf.where(zero, tf.zeros_like(largest[name]), largest[name])
            # One pass over the values; a quotient and a `where` would take three.
            scaled[name] = value * tf.math.reciprocal_no_nan(largest[name])
        squares = self._total({name: tf.square(value) for name, value in scaled.items()})
        lengths = {
            name: tf.where(square == 0, tf.ones_like(square), tf.sqrt(square))
            for name, square in squares.items()
        }
        return scaled, lengths, largest


def _widen(values: Tensors) -> Tensors:
    """Casts half precision to float32 and leaves wider types as they are."""
    return {
        name: tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value
        for name, value in values.items()
    }


def _smallest_normal(dtype: tf.DType) -> float:
    return 2.0**-1022 if dtype == tf.float64 else 2.0**-126
