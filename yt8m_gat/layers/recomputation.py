"""A function of blocks of frames, computed block after block and again for its gradients."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import ops

Tensor = Any
Tensors = Any
"""A tensor, or nested tuples of tensors."""


class BlockFunction:
    """Computes a function on one block of frames after another, and keeps nothing from inside it.

    Its gradient goes over the same blocks and computes the function again. It is such a function
    itself: a gradient by `blocked` consists of blocks, and one by `shared` is a sum over the
    blocks. Gradients of every order therefore need the memory of one block at a time.

    Args:
        function: takes a block [B, N, t, X] of each tensor of `blocked`, and all of `shared`;
            returns results of the block, each [B, N, t, Y], and terms that are summed over the
            blocks. The last block is filled up with zeros, which must not give NaN.
        block_length: the greatest t; the blocks have equal lengths.

    Call arguments:
        blocked: tensors [B, N, T, X]; `T` may be unknown.
        shared: tensors of any shape.
        like: tensors of the shapes and types of the results [B, N, T, Y] and of the sums.

    Returns:
        The results of all blocks, and the sums (of halves: taken in float32).
    """

    def __init__(
        self, function: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]], block_length: int
    ) -> None:
        self._function = function
        self._block_length = block_length
        # Not inlined, so that TensorFlow merges calls that are alike, such as the clean backward
        # passes of the attack and of the update. Two loops it would not merge.
        self._loop = tf.function(
            self._one_after_another,
            autograph=False,
            reduce_retracing=True,
            experimental_attributes={"_noinline": True},
        )

    def __call__(
        self, blocked: Tensors, shared: Tensors, like: tuple[Tensors, Tensors]
    ) -> tuple[Tensors, Tensors]:
        """Runs over the blocks; see the class."""

        @tf.custom_gradient
        def run(*arguments: Tensor) -> tuple[list[Tensor], Callable[..., list[Tensor]]]:
            blocks, whole = tf.nest.pack_sequence_as((blocked, shared), arguments)

            def gradient(*upstream: Tensor) -> list[Tensor]:
                of_results, of_sums = tf.nest.pack_sequence_as(like, upstream)
                return tf.nest.flatten(
                    self._gradient((blocks, of_results), (whole, of_sums), like=(blocks, whole))
                )

            # Tapes must not see the loop: its own gradient, which nobody needs, would keep all that
            # is computed inside, and XLA cannot compile it.
            unseen = tf.nest.map_structure(tf.stop_gradient, (blocks, whole, like))
            loop = self._one_after_another if tf.executing_eagerly() else self._loop
            outputs = loop(*unseen)
            return tf.nest.flatten(outputs), gradient

        # A gradient may be traced in another graph than this one, and the gradient of that in a
        # third: each has to hold tensors of its own graph.
        outputs = run(*(tf.identity(x) for x in tf.nest.flatten((blocked, shared))))
        return tf.nest.pack_sequence_as(like, outputs)

    @functools.cached_property
    def _gradient(self) -> "BlockFunction":
        def pullback(blocked: Tensors, shared: Tensors) -> tuple[Tensors, Tensors]:
            inputs, directions = zip(blocked, shared, strict=True)
            with tf.GradientTape() as tape:
                tape.watch(tf.nest.flatten(inputs))
                outputs = self._function(*inputs)
            return tape.gradient(outputs, inputs, directions, unconnected_gradients="zero")

        return BlockFunction(pullback, self._block_length)

    def _one_after_another(
        self, blocked: Tensors, shared: Tensors, like: tuple[Tensors, Tensors]
    ) -> tuple[Tensors, Tensors]:
        blocks = tf.nest.flatten(blocked)
        _, _, num_frames, _ = ops.shape(blocks[0])
        num_blocks = -(-num_frames // self._block_length)
        at_least = max if isinstance(num_blocks, int) else tf.maximum
        num_blocks = at_least(1, num_blocks)  # Clips without frames: one block of none.
        length = -(-num_frames // num_blocks)
        filling = [[0, 0], [0, 0], [0, num_blocks * length - num_frames], [0, 0]]
        blocks = [tf.pad(x, filling) for x in blocks]

        def step(
            index: Tensor, results: list[tf.TensorArray], sums: list[Tensor]
        ) -> tuple[Tensor, list[tf.TensorArray], list[Tensor]]:
            of_block = [
                tf.slice(x, [0, 0, index * length, 0], [-1, -1, length, -1]) for x in blocks
            ]
            outputs = self._function(tf.nest.pack_sequence_as(blocked, of_block), shared)
            found, terms = (tf.nest.flatten(of_kind) for of_kind in outputs)
            results = [array.write(index, x) for array, x in zip(results, found, strict=True)]
            sums = [
                tf.ensure_shape(total + tf.cast(term, total.dtype), total.shape)
                for total, term in zip(sums, terms, strict=True)
            ]
            return index + 1, results, sums

        results_like, sums_like = (tf.nest.flatten(of_kind) for of_kind in like)
        arrays = [
            tf.TensorArray(x.dtype, num_blocks, element_shape=[*x.shape[:2], None, x.shape[3]])
            for x in results_like
        ]
        zeros = [
            tf.zeros_like(x, dtype=tf.float32 if x.dtype.size < 4 else x.dtype) for x in sums_like
        ]
        _, arrays, sums = tf.while_loop(
            lambda index, *_: index < num_blocks,
            step,
            (tf.constant(0), arrays, zeros),
            parallel_iterations=1,
        )
        results = [_joined(array.stack(), x) for array, x in zip(arrays, results_like, strict=True)]
        sums = [tf.cast(total, x.dtype) for total, x in zip(sums, sums_like, strict=True)]
        return tf.nest.pack_sequence_as(like, results + sums)


def _joined(blocks: Tensor, like: Tensor) -> Tensor:
    """Joins blocks [blocks, B, N, t, Y] to a tensor [B, N, T, Y]."""
    num_blocks, batch, heads, length, size = ops.shape(blocks)
    joined = tf.transpose(blocks, (1, 2, 0, 3, 4))
    joined = tf.reshape(joined, (batch, heads, num_blocks * length, size))
    return tf.ensure_shape(joined[:, :, : ops.shape(like)[2]], like.shape)
