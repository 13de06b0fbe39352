"""How alike the frames of a clip are: what attention maps are compared with."""

import numpy as np


def frame_similarity(frames: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of every two frames (local temporal paper, figure 1).

    S[t, s] = <x_t, x_s> / (||x_t|| ||x_s||). A frame of zeros is like no other: 0, also with
    itself.

    Args:
        frames: The real frames of one feature, [T, D], or raw pixels [T, S, S, 3].

    Returns:
        [T, T] in [-1, 1], symmetric.

    Examples:
        >>> frame_similarity(np.array([[3.0, 4.0], [4.0, -3.0], [6.0, 8.0]])).round(3) + 0.0
        array([[1., 0., 1.],
               [0., 1., 0.],
               [1., 0., 1.]])
    """
    rows = np.asarray(frames, np.float64).reshape(len(frames), -1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return directions @ directions.T
