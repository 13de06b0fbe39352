"""Explanations of one label of a clip: gradients over time, and the model's own attention."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.saliency import Saliency

from yt8m_gat.explanation.frame_similarity import frame_similarity

_FRAMES = "contextual_frames"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Curves over the frames of one clip, each [T] and exactly 0 on padding.

    Attributes:
        probabilities: [C], one per class.
        saliency: Feature -> largest |d logit / d x| of each frame.
        smooth_grad: Feature -> the same, averaged over noisy copies of the clip.
        grad_cam: Grad-CAM++ over the contextual frames of all features; None for a model that
            does not classify them by `classify`.
        attention: Feature -> share of attention that each frame gets: the global map, averaged
            over heads and real rows; empty for models without attention.
        maps: Feature -> the global map of each head over the n real frames, [H, n, n].
        similarity: Feature -> cosine of every two real frames of the model's input, [n, n].
    """

    probabilities: np.ndarray
    saliency: dict[str, np.ndarray]
    smooth_grad: dict[str, np.ndarray]
    grad_cam: np.ndarray | None
    attention: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    similarity: dict[str, np.ndarray]


def explain(
    classifier: Any,
    features: Mapping[str, Any],
    frame_mask: Any,
    label: int,
    smooth_samples: int = 20,
    smooth_noise: float = 0.1,
) -> Explanation:
    """Explains one label of one clip with tf-keras-vis.

    It builds a functional model in which the mask is a constant: SmoothGrad adds noise to every
    input.

    Args:
        classifier: A frame-level `VideoClassifier`, in float32.
        features: Feature name -> [T, D], preprocessed, 0 on padding; or the pixels [T, S, S, 3] of
            a raw clip.
        frame_mask: Boolean [T], True at real frames.
        label: The class whose logit is explained.
        smooth_samples: Noisy copies that SmoothGrad averages over.
        smooth_noise: Standard deviation of their noise, as a share of each frame's range of values.

    Raises:
        ValueError: `label` is not a class of the classifier, or no frame is real.
    """
    if not 0 <= label < classifier.num_classes:
        raise ValueError(
            f"`label` must be in 0 .. {classifier.num_classes - 1}. Received: label={label}"
        )
    real = np.asarray(frame_mask, bool)
    if not real.any():
        raise ValueError("a clip without real frames cannot be explained")
    names = list(classifier.feature_sizes)
    clip = [np.asarray(features[name], np.float32)[None] for name in names]
    mask = ops.convert_to_tensor(real[None])
    inputs = [keras.Input(x.shape[1:], batch_size=1) for x in clip]
    outputs = classifier.forward(dict(zip(names, inputs, strict=True)), mask)
    model = keras.Model(inputs, outputs.logits)

    def score(logits: Any) -> Any:
        return logits[:, label]

    def curves(maps: list[Any]) -> dict[str, np.ndarray]:
        # Of raw clips [1, T, S, S]: the largest gradient over the colors.
        by_frame = (np.asarray(x)[0].reshape(len(real), -1) for x in maps)
        return {name: x.max(axis=1) for name, x in zip(names, by_frame, strict=True)}

    saliency = Saliency(model)
    plain = saliency(score, clip, normalize_map=False)
    smooth = saliency(
        score, clip, smooth_samples=smooth_samples, smooth_noise=smooth_noise, normalize_map=False
    )
    grad_cam = None
    if hasattr(classifier, "classify"):
        frames = keras.layers.Identity(name=_FRAMES)(outputs.frames)
        from_frames = keras.Model(inputs, classifier.classify(frames, mask))
        cam = GradcamPlusPlus(from_frames)(
            score,
            clip,
            penultimate_layer=_FRAMES,
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
        )
        grad_cam = np.asarray(cam)[0]
    result = classifier.forward(
        {name: ops.convert_to_tensor(x) for name, x in zip(names, clip, strict=True)}, mask
    )
    heads = {
        name: np.asarray(maps["global"][0])
        for name, maps in result.attention_maps.items()
        if "global" in maps
    }
    attention = {name: maps.mean(axis=0)[real].mean(axis=0) for name, maps in heads.items()}
    probabilities = np.asarray(classifier.probabilities(result.logits))[0]
    return Explanation(
        probabilities,
        curves(plain),
        curves(smooth),
        grad_cam,
        attention,
        {name: maps[:, real][:, :, real] for name, maps in heads.items()},
        {name: frame_similarity(x[0][real]) for name, x in zip(names, clip, strict=True)},
    )
