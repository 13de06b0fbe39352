"""A video that is attacked before its features are made: in its pixels, or in its sound."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import PIXEL_RANGE, Ball
from yt8m_gat.config import NORM_SCOPES
from yt8m_gat.data import RecordSchema, preprocess
from yt8m_gat.data.preprocessing import normalize_features
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.extraction.extractor import Extracted, Extractor
from yt8m_gat.extraction.log_mel import SAMPLE_RATE
from yt8m_gat.locks import temporary_folder
from yt8m_gat.pipeline.video_prediction import batch_of_video
from yt8m_gat.video.clips import Clip
from yt8m_gat.video.decoding import Video
from yt8m_gat.video.lossless import ENDING, write_lossless
from yt8m_gat.video.source import error_of

PIXELS, SOUND = "pixels", "sound"
FEATURE_OF = {PIXELS: "rgb", SOUND: "audio"}
"""What is attacked -> the feature that is made of it."""

RANGES = {PIXELS: PIXEL_RANGE, SOUND: (-1.0, 1.0)}

MAX_BYTES = 1 << 30
"""Maximal memory of a video's pictures, as uint8, and of their attacked part, as float32."""


class Judged(NamedTuple):
    """What a run says about a video.

    Attributes:
        features: Its dequantized features, name -> float32 [1, T, K].
        inputs: The same as the classifier takes them, normalized if it normalizes.
        probabilities: [C].
    """

    features: dict[str, tf.Tensor]
    inputs: dict[str, tf.Tensor]
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True)
class AttackedVideo:
    """A decoded video.

    Attributes:
        name: Its id.
        labels: float32 [1, C], multi-hot.
        pictures: uint8 [T, H, W, 3], its frames at the extractor's rate, a corner of each where no
            feature is made of them; None: there are none.
        waveform: float32 [S], 16 kHz; None: it has none, or none is needed.
        faults: What was wrong with it, a line each.
        clean: What the run says about its file.
        num_frames: T, of the frames that the classifier takes.
    """

    name: str
    labels: tf.Tensor
    pictures: np.ndarray | None
    waveform: np.ndarray | None
    faults: tuple[str, ...]
    clean: Judged
    num_frames: int


class VideoChain:
    """The whole way from pixels or samples to logits, with gradients, and as the product goes it.

    With gradients, neither resized pictures nor features are rounded
    (`yt8m_gat.extraction.differentiable`), and the features of the part that is not attacked are
    those of the file. `judge` goes the way of every video: the attacked frames, as bytes, and
    samples, of 16 bits, are written to a lossless file, from which the extractor makes features.

    Args:
        extractor: The extractor of the run.
        evaluator: Of the run's classifier.
        schema: The schema of its records.
        parts: What will be attacked: `PIXELS`, `SOUND`.

    Raises:
        ConfigError: The model of a part has no gradient; the message says which.
    """

    def __init__(
        self, extractor: Extractor, evaluator: Evaluator, schema: RecordSchema, parts: list[str]
    ) -> None:
        self.extractor = extractor
        self.evaluator = evaluator
        self.schema = schema
        self._chain = extractor.differentiable([FEATURE_OF[part] for part in parts])
        self._inputs = {part: tf.function(self._traced_inputs(part)) for part in parts}
        self._logits = {part: tf.function(self._traced_logits(part)) for part in parts}
        self._classify = tf.function(self._probabilities, reduce_retracing=True)

    def open(self, clip: Clip, name: str, labels: np.ndarray) -> AttackedVideo:
        """Decodes a video, and extracts and classifies it.

        Args:
            clip: The file.
            name: Its id.
            labels: [C], multi-hot.

        Raises:
            VideoError: It cannot be read, or is too large.
        """
        config = self.extractor.config
        extracted = self.extractor(clip.path, start=clip.start, end=clip.end)
        judged, num_frames = self._judged(extracted, name)
        pictures = waveform = None
        with Video(
            clip.path, start=clip.start, end=clip.end, max_seconds=config.max_seconds
        ) as video:
            if config.picture is not None and video.info.has_picture:
                pictures = self._pictures_of(video, clip.path, num_frames)
            if config.sound is not None and video.info.has_sound:
                waveform = np.concatenate(list(video.sound(sample_rate=SAMPLE_RATE)))
        multi_hot = tf.constant(labels[np.newaxis], tf.float32)
        return AttackedVideo(
            name, multi_hot, pictures, waveform, extracted.faults, judged, num_frames
        )

    def _pictures_of(self, video: Video, path: str, num_frames: int) -> np.ndarray:
        images, used = [], 0
        is_needed = FEATURE_OF[PIXELS] in self.schema.feature_names
        for frame in video.frames(frames_per_second=self.extractor.config.frames_per_second):
            # Of pictures that no feature is made of only the times count.
            image = frame.image if is_needed else frame.image[:2, :2].copy()
            used += image.nbytes
            cropped = image[self.cropped].size * (len(images) + 1)
            if max(used, 4 * cropped) > MAX_BYTES:
                raise error_of(
                    path,
                    f"its pictures must take at most {MAX_BYTES / 1e9:.1f} GB, a byte for "
                    "each value of a frame and 4 for each attacked one. Received: more, within the "
                    f"first {len(images) + 1} of {num_frames} frames; name shorter parts, by "
                    "start,end in --labels, or a smaller copy",
                )
            images.append(image)
            if len(images) == num_frames:
                break
        return np.stack(images)

    @property
    def cropped(self) -> tuple[slice, slice]:
        """Returns the rows and columns of the picture that the extractor uses."""
        if self.extractor.config.crop is None:
            return slice(None), slice(None)
        x, y, width, height = self.extractor.config.crop
        return slice(y, y + height), slice(x, x + width)

    def start(self, video: AttackedVideo, part: str) -> tf.Tensor:
        """Returns what is attacked: pixels float32 [1, T, H, W, 3], cropped, or samples [1, S]."""
        if part == SOUND:
            return tf.constant(video.waveform)[tf.newaxis]
        pictures = video.pictures[(slice(None), *self.cropped)]
        return tf.constant(pictures[np.newaxis], tf.float32)

    def logits(self, video: AttackedVideo, part: str, x: tf.Tensor) -> tf.Tensor:
        """Returns the logits [1, C] of the unrounded chain, where a part of the video is x."""
        return self._logits[part](x, self._others(video, part), tf.constant(video.num_frames))

    def inputs(self, video: AttackedVideo, part: str, x: tf.Tensor) -> tf.Tensor:
        """Returns the classifier's input of this part, unrounded, float32 [1, T, K]."""
        others, num_frames = self._others(video, part), tf.constant(video.num_frames)
        return self._inputs[part](x, others, num_frames)[FEATURE_OF[part]]

    def _others(self, video: AttackedVideo, part: str) -> dict[str, tf.Tensor]:
        """Returns the dequantized features of the other parts, as they are in the file."""
        return {
            name: value for name, value in video.clean.features.items() if name != FEATURE_OF[part]
        }

    def _probabilities(self, inputs: dict[str, tf.Tensor], mask: tf.Tensor) -> tf.Tensor:
        logits = self.evaluator.forward(inputs, mask).logits
        return self.evaluator.classifier.probabilities(logits)

    def _traced_inputs(self, part: str) -> Any:
        def inputs(
            x: tf.Tensor, others: Mapping[str, tf.Tensor], num_frames: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            if part == SOUND:
                made = self._chain.of_sound(x[0], num_frames)
            else:
                made = self._chain.of_pictures(x[0])
            made = {**others, FEATURE_OF[part]: made[tf.newaxis]}
            ordered = {name: made[name] for name in self.schema.feature_names}
            return preprocess(ordered, num_frames[tf.newaxis], self.evaluator.normalize)[0]

        return inputs

    def _traced_logits(self, part: str) -> Any:
        def logits(
            x: tf.Tensor, others: Mapping[str, tf.Tensor], num_frames: tf.Tensor
        ) -> tf.Tensor:
            inputs = self._inputs[part](x, others, num_frames)
            mask = tf.ones([1, num_frames], tf.bool)
            return self.evaluator.forward(inputs, mask).logits

        return logits

    def stored_pictures(self, video: AttackedVideo, x: tf.Tensor) -> np.ndarray:
        """Returns the frames with attacked pixels as a file holds them: uint8 [T, H, W, 3]."""
        return with_part(video.pictures, self.cropped, x[0].numpy())

    def judge(
        self, video: AttackedVideo, part: str | None = None, x: tf.Tensor | None = None
    ) -> Judged:
        """Writes the video with an attacked part to a file, and extracts and classifies that.

        Args:
            video: The video.
            part: What was attacked; None: nothing, the file holds the frames as they are.
            x: The attacked part, as of `start`.
        """
        pictures, waveform = video.pictures, video.waveform
        if part == SOUND and x is not None:
            waveform = x[0].numpy()
        elif x is not None:
            pictures = self.stored_pictures(video, x)
        rate = self.extractor.config.frames_per_second
        with temporary_folder() as folder:
            path = folder / f"attacked{ENDING}"
            write_lossless(path, () if pictures is None else pictures, rate, waveform, SAMPLE_RATE)
            return self._judged(self.extractor(path), video.name)[0]

    def _judged(self, extracted: Extracted, name: str) -> tuple[Judged, int]:
        batch = batch_of_video(extracted, self.schema, name)
        num_frames = int(batch["num_frames"][0])
        stored = {name: value[:, :num_frames] for name, value in batch["features"].items()}
        features, mask = preprocess(stored, batch["num_frames"])
        inputs = normalize_features(features, self.evaluator.normalize)
        return Judged(features, inputs, self._classify(inputs, mask)[0].numpy()), num_frames


def feature_distance(change: tf.Tensor, norm_scope: str) -> tf.Tensor:
    """Returns how far features moved, in the units of a run's epsilon: float [B].

    The l2 norm of a frame, averaged over the frames, for the scope `frame`, in whose ball each
    frame moves by epsilon; else the l2 norm over all frames.

    Args:
        change: Float [B, T, K]; all frames are real.
        norm_scope: Of the run's ball.
    """
    if norm_scope not in NORM_SCOPES:
        raise ValueError(f"`norm_scope` must be one of {NORM_SCOPES}. Received: {norm_scope!r}")
    if norm_scope != "frame":
        return Ball("l2", "example").norm_of({"x": change}, None)
    squares = tf.reduce_sum(tf.square(change), axis=-1)
    # The root of 0 has no gradient.
    moved = squares > 0
    lengths = tf.where(moved, tf.sqrt(tf.where(moved, squares, 1.0)), 0.0)
    return tf.reduce_mean(lengths, axis=-1)


def with_part(pictures: np.ndarray, part: tuple[slice, slice], pixels: np.ndarray) -> np.ndarray:
    """Returns pictures in which a part has other pixels, rounded to bytes.

    Args:
        pictures: uint8 [T, H, W, 3].
        part: Its rows and columns.
        pixels: Float [T, h, w, 3].
    """
    changed = pictures.copy()
    changed[(slice(None), *part)] = np.rint(np.clip(pixels, *PIXEL_RANGE))
    return changed


def moved_by(video: AttackedVideo, judged: Judged, part: str, norm_scope: str) -> float:
    """Returns how far the features of a part are from those of the clean file."""
    name = FEATURE_OF[part]
    change = judged.inputs[name] - video.clean.inputs[name]
    return float(feature_distance(change, norm_scope)[0])


def sound_length(video: AttackedVideo) -> float:
    """Returns the l2 norm of the sound; 0 for silence, and where there is none."""
    return 0.0 if video.waveform is None else float(np.linalg.norm(video.waveform))


def psnr(change: np.ndarray) -> float | None:
    """Returns the peak signal to noise ratio of pixels in dB; None if nothing changed."""
    mean_square = float(np.mean(np.square(change, dtype=np.float64)))
    return None if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


def snr(signal: np.ndarray, change: np.ndarray) -> float | None:
    """Returns the signal to noise ratio of samples in dB; None if nothing changed, or silence."""
    noise = float(np.sum(np.square(change, dtype=np.float64)))
    power = float(np.sum(np.square(signal, dtype=np.float64)))
    return None if noise == 0 or power == 0 else 10 * math.log10(power / noise)
