"""Random draws for the clips of a batch, which do not depend on which of them take part.

An attack that leaves out clips that are broken draws for the whole batch, and takes the draws of
the others, so that their result is the one that they have without leaving any out.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import tensorflow as tf


class _Part(NamedTuple):
    """The clips that take part: their places, int64 [n], in a batch of `size`, int32 []."""

    rows: tf.Tensor
    size: tf.Tensor


_part: ContextVar[_Part | None] = ContextVar("part", default=None)


@contextlib.contextmanager
def part_of_batch(rows: tf.Tensor, size: tf.Tensor) -> Iterator[None]:
    """Makes the draws inside those of some clips of a batch.

    In a graph it has to be entered where the draws are traced. Inside of another part, `rows` are
    places in that one.

    Args:
        rows: Int [n], ascending, places in the batch.
        size: Int32 [], clips of the batch.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks.draws import part_of_batch, uniform
        >>> whole = uniform([3, 2], [5, 0])
        >>> with part_of_batch(tf.constant([0, 2]), 3):
        ...     part = uniform([2, 2], [5, 0])
        >>> bool(tf.reduce_all(part == tf.gather(whole, [0, 2])))
        True
    """
    outer = _part.get()
    if outer is not None:
        rows, size = tf.gather(outer.rows, rows), outer.size
    token = _part.set(_Part(rows, size))
    try:
        yield
    finally:
        _part.reset(token)


def uniform(shape: Any, seed: Any, axis: int = 0, **bounds: float) -> tf.Tensor:
    """Draws `tf.random.stateless_uniform(shape, seed)`; `axis` of the shape is that of clips."""
    return _drawn(tf.random.stateless_uniform, shape, seed, axis, **bounds)


def normal(shape: Any, seed: Any) -> tf.Tensor:
    """Draws `tf.random.stateless_normal(shape, seed)`; the first axis is that of clips."""
    return _drawn(tf.random.stateless_normal, shape, seed, 0)


def _drawn(draw: Any, shape: Any, seed: Any, axis: int, **bounds: float) -> tf.Tensor:
    part = _part.get()
    if part is None:
        return draw(shape, seed, **bounds)
    whole = [part.size if place == axis else size for place, size in enumerate(tf.unstack(shape))]
    return tf.gather(draw(tf.stack(whole), seed, **bounds), part.rows, axis=axis)
