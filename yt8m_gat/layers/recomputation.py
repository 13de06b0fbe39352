"""A function of blocks of frames, computed block after block and again for its gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from keras import ops

Tensor = Any
Tensors = Sequence[Tensor]
Function = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


def over_blocks(
    function: Function,
    blocked: Tensors,
    shared: Tensors,
    block_length: int,
    results_like: Tensors,
    sums_like: Tensors = (),
) -> tuple[Tensor, ...]:
    """Computes `function` on one block of frames after another, and keeps nothing from inside it.

    Its gradient goes over the same blocks and computes `function` again. It is such a function
    itself: a gradient by `blocked` consists of blocks, and one by `shared` is a sum over the
    blocks. Gradients of every order therefore need the memory of one block at a time.

    Args:
        function: takes one block [B, N, t, X] of each of `blocked`, and all of `shared`; returns
            results for the frames of the block, [B, N, t, Y], and terms that are summed over the
            blocks. The last block is filled up with zeros, which must not give NaN.
        blocked: tensors [B, N, T, X]; `T` may be unknown.
        shared: tensors of any shape.
        block_length: the greatest t; the blocks have equal lengths.
        results_like: for each result, a tensor [B, N, T, Y] of its sizes and type.
        sums_like: for each sum, a tensor of its shape and type (halves are summed in float32).

    Returns:
        The results [B, N, T, Y] of all blocks, then the sums.
    """
    num_blocked, num_results = len(blocked), len(results_like)

    def pullback(blocked: Tensors, shared: Tensors) -> tuple[Tensors, Tensors]:
        inputs = (blocked[:num_blocked], shared[: len(shared) - len(sums_like)])
        directions = (blocked[num_blocked:], shared[len(shared) - len(sums_like) :])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs)
        return tape.gradient(outputs, inputs, directions, unconnected_gradients="zero")

    @tf.custom_gradient
    def run(*arguments: Tensor) -> tuple[tuple[Tensor, ...], Callable[..., tuple[Tensor, ...]]]:
        blocked, shared = arguments[:num_blocked], arguments[num_blocked:]

        def gradient(*upstream: Tensor) -> tuple[Tensor, ...]:
            return over_blocks(
                pullback,
                blocked + upstream[:num_results],
                shared + upstream[num_results:],
                block_length,
                results_like=blocked,
                sums_like=shared,
            )

        # Tapes must not see the loop: XLA cannot compile the gradient of one, which nobody needs.
        unseen = [tf.stop_gradient(x) for x in arguments]
        results = _one_after_another(
            function,
            unseen[:num_blocked],
            unseen[num_blocked:],
            block_length,
            results_like,
            sums_like,
        )
        return results, gradient

    # The gradient may be traced in another graph than this one, and its own gradient in a third:
    # each has to hold on to tensors of its own graph.
    return run(*(tf.identity(x) for x in (*blocked, *shared)))


def _one_after_another(
    function: Function,
    blocked: Tensors,
    shared: Tensors,
    block_length: int,
    results_like: Tensors,
    sums_like: Tensors,
) -> tuple[Tensor, ...]:
    batch, heads, num_frames, _ = ops.shape(blocked[0])
    num_blocks = -(-num_frames // block_length)
    length = -(-num_frames // num_blocks)
    filling = [[0, 0], [0, 0], [0, num_blocks * length - num_frames], [0, 0]]
    blocked = [tf.pad(x, filling) for x in blocked]

    def step(
        index: Tensor, results: list[tf.TensorArray], sums: list[Tensor]
    ) -> tuple[Tensor, list[tf.TensorArray], list[Tensor]]:
        of_block, terms = function(
            [tf.slice(x, [0, 0, index * length, 0], [-1, -1, length, -1]) for x in blocked], shared
        )
        results = [array.write(index, x) for array, x in zip(results, of_block, strict=True)]
        sums = [
            tf.ensure_shape(total + tf.cast(term, total.dtype), total.shape)
            for total, term in zip(sums, terms, strict=True)
        ]
        return index + 1, results, sums

    arrays = [
        tf.TensorArray(x.dtype, num_blocks, element_shape=[*x.shape[:2], None, x.shape[3]])
        for x in results_like
    ]
    zeros = [tf.zeros_like(x, dtype=tf.float32 if x.dtype.size < 4 else x.dtype) for x in sums_like]
    _, arrays, sums = tf.while_loop(
        lambda index, *_: index < num_blocks,
        step,
        (tf.constant(0), arrays, zeros),
        parallel_iterations=1,
    )

    def join(array: tf.TensorArray, like: Tensor) -> Tensor:
        # [blocks, B, N, t, Y] -> [B, N, blocks, t, Y] -> [B, N, T, Y]
        stacked = tf.transpose(array.stack(), (1, 2, 0, 3, 4))
        joined = tf.reshape(stacked, (batch, heads, num_blocks * length, like.shape[3]))
        joined = tf.slice(joined, (0, 0, 0, 0), (-1, -1, num_frames, -1))
        return tf.ensure_shape(joined, like.shape)

    return (
        *(join(array, like) for array, like in zip(arrays, results_like, strict=True)),
        *(tf.cast(total, like.dtype) for total, like in zip(sums, sums_like, strict=True)),
    )
