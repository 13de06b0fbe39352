"""Export of a run as a SavedModel for TensorFlow Serving."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from yt8m_gat.calibration import Calibration
from yt8m_gat.config import CLIP_FEATURE
from yt8m_gat.data import (
    RecordSchema,
    normalize_features,
    parse_clip_batch,
    parse_frame_batch,
    parse_video_batch,
    preprocess,
)
from yt8m_gat.disk import remove_unfinished, replacing
from yt8m_gat.export.warm_up import longest_clip, longest_record, write_warm_up
from yt8m_gat.locks import only_writer_in
from yt8m_gat.models import VideoClassifier, feature_identifiers
from yt8m_gat.weights.copying import without_auxiliary

SERVING_DEFAULT = "serving_default"
FRAMES = "frames"
CLIPS = "clips"
ATTENTION = "attention"
IMAGES = "images"
TAGS = "tags"
PROVENANCE_FILE = "assets.extra/provenance.json"
"""File in a SavedModel's folder, ignored by loaders, that records the source of its weights."""

_GLOBAL = "global"


class Extractor(Protocol):
    """Makes features of pictures inside of a graph; see `extraction.in_graph.GraphExtractor`."""

    @property
    def has_sound(self) -> bool:
        """Whether a waveform is needed beside the pictures."""

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of its models."""

    @property
    def example(self) -> bytes:
        """A file of a picture that it takes."""

    def __call__(
        self, images: tf.Tensor, waveform: tf.Tensor | None = None
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Returns the features of pictures [N, T], uint8 [N, T, D], and the frames, int32 [N]."""


class ServingModule(tf.Module):
    """The served model: it takes records or frames and returns predictions.

    Parsing, dequantizing, normalizing and masking are those of training. Only the classifier's
    variables are tracked, each once; the Keras objects that hold them are not in the SavedModel.

    Args:
        classifier: The trained classifier.
        schema: What the records hold.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video of `serve`, `attend` and `classify_images`.
        extractor: Makes the features of pictures; None: there is no signature `images`.
        calibration: Temperature and thresholds; None: there is no signature `tags`.
    """

    def __init__(
        self,
        classifier: VideoClassifier,
        schema: RecordSchema,
        normalize: str = "none",
        top_k: int = 20,
        extractor: Extractor | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        # A tuple would be tracked as a data structure too; only the values are saved.
        self.weights = [variable.value for variable in classifier.variables]
        if extractor is not None:
            self.weights += extractor.variables
        self._classifier = _Untracked(classifier)
        self._extractor = _Untracked(extractor)
        self._calibration = _Untracked(calibration)
        self._schema = schema
        self._normalize = normalize
        self._top_k = min(top_k, classifier.num_classes)

    @property
    def _identifiers(self) -> dict[str, str]:
        return feature_identifiers(self._schema.feature_names)

    @property
    def frames_name(self) -> str:
        """Name of the input of `frames`: the features in order, `rgb_and_audio` by default."""
        return "_and_".join(self._identifiers.values())

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures of this classifier, by name.

        `serving_default` (see `serve`) always; `frames` (see `frames`) of a model of frame
        features; `clips` (see `clips`) of one of raw clips; `attention` (see `attend`) of one
        whose every block has a global attention map; `images` (see `classify_images`) with an
        extractor; `tags` (see `tag`) of a calibrated run.
        """
        records = tf.TensorSpec([None], tf.string, name="example_bytes")
        signatures = {SERVING_DEFAULT: _function(self.serve, records)}
        if self._schema.clips is not None:
            pixels = tf.TensorSpec([None, *self._clip_shape], tf.uint8, name=CLIPS)
            signatures[CLIPS] = _function(self.clips, pixels)
        elif self._schema.frame_level:
            size = sum(self._schema.sizes.values())
            signatures[FRAMES] = _function(
                self.frames,
                tf.TensorSpec([None, None, size], tf.float32, name=self.frames_name),
                tf.TensorSpec([None, 1], tf.int32, name="num_frames"),
            )
        if _GLOBAL in self._classifier.value.attention_levels:
            signatures[ATTENTION] = _function(self.attend, records)
        if self._extractor.value is not None:
            specs = [tf.TensorSpec([None, None], tf.string, name="images")]
            if self._extractor.value.has_sound:
                specs.append(tf.TensorSpec([None, None], tf.float32, name="waveform"))
            signatures[IMAGES] = _function(self.classify_images, *specs)
        if self._calibration.value is not None:
            signatures[TAGS] = _function(self.tag, records)
        return signatures

    def serve(self, example_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predicts from records; the signature `serving_default`.

        Args:
            example_bytes: [N] serialized `SequenceExample`s (frame level) or `Example`s.

        Returns:
            `video_id` [N] string, `class_indexes` [N, k] int32 and `predictions` [N, k] float32,
            by descending probability (on ties, the lower class first).

        Raises:
            tf.errors.InvalidArgumentError: A record is bad; the message names it, the fault and
                the remedy (`yt8m_gat.data.parse_frame_batch`).
        """
        video_id, logits = self._classify(example_bytes)
        return {"video_id": video_id, **self._top(logits)}

    def tag(self, example_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predicts calibrated probabilities and tags from records; the signature `tags`.

        Args:
            example_bytes: As in `serve`.

        Returns:
            `video_id` [N] string, `probabilities` [N, C] float32, calibrated, and `is_tag` [N, C]
            bool: whether each is at least the threshold of its class.

        Raises:
            tf.errors.InvalidArgumentError: As `serve`.
        """
        video_id, logits = self._classify(example_bytes)
        probabilities, is_tag = calibrated(self._classifier.value, logits, self._calibration.value)
        return {"video_id": video_id, "probabilities": probabilities, "is_tag": is_tag}

    def frames(self, frames: tf.Tensor, num_frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predicts from frames, in the form of the starter code's export for MediaPipe.

        Args:
            frames: [N, T, D] concatenated dequantized features, not normalized, any T; values after
                a clip's frames, or after the `max_frames` of the run, are ignored.
            num_frames: [N, 1], from 1 to T.

        Returns:
            `predictions` [N, C] float32, the probability of each class.

        Raises:
            tf.errors.InvalidArgumentError: One of the two has another shape, `num_frames` is of
                another N or outside 1 .. T, or a frame has a value that is not finite.
        """
        sizes = self._schema.sizes
        total = sum(sizes.values())
        laid_out = ", then ".join(f"{size} of {name}" for name, size in sizes.items())
        rule = f"{self.frames_name} must be [N, T, {total}]: {laid_out}"
        shapes = [
            _require_shape(frames, 3, total, rule),
            _require_shape(num_frames, 2, 1, "num_frames must be [N, 1]: one number for each clip"),
        ]
        with tf.control_dependencies(shapes):
            frames, num_frames = tf.identity(frames), tf.identity(num_frames)
        num_clips, num_steps = tf.shape(frames)[0], tf.shape(frames)[1]
        counts = num_frames[:, 0]
        has_rows = _require(
            tf.logical_and(num_clips >= 1, tf.equal(tf.shape(counts)[0], num_clips)),
            f"num_frames must have a row for each clip of {self.frames_name}, at least one. "
            "Received rows, clips:",
            tf.shape(counts)[0],
            num_clips,
        )
        in_range = _require(
            tf.reduce_all(tf.logical_and(counts >= 1, counts <= num_steps)),
            f"num_frames must be from 1 to the T of {self.frames_name}. Received T, num_frames:",
            num_steps,
            counts,
        )
        with tf.control_dependencies([has_rows, in_range]):
            counts = tf.minimum(counts, self._schema.max_frames)
        frames = frames[:, : self._schema.max_frames]
        frame_mask = tf.sequence_mask(counts, tf.shape(frames)[1])  # [N, T]
        frames = tf.where(frame_mask[:, :, tf.newaxis], frames, 0.0)
        finite = tf.reduce_all(tf.math.is_finite(frames), axis=[1, 2])  # [N]
        all_finite = _require(
            tf.reduce_all(finite),
            f"{self.frames_name} must be finite. Received NaN or infinity in clips:",
            tf.where(tf.logical_not(finite))[:, 0],
        )
        with tf.control_dependencies([all_finite]):
            parts = tf.split(frames, list(sizes.values()), axis=-1)
        named = dict(zip(sizes, parts, strict=True))
        features = normalize_features(named, self._normalize)
        logits = self._classifier.value({**features, "frame_mask": frame_mask}, training=False)
        return {"predictions": self._classifier.value.probabilities(logits)}

    @property
    def _clip_shape(self) -> tuple[int, int, int, int]:
        settings = self._schema.clips
        return settings.num_segments, settings.crop_size, settings.crop_size, 3

    def clips(self, clips: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predicts from the T frames of each clip that the model sees.

        Args:
            clips: [N, T, S, S, 3] uint8, RGB, in order. `yt8m_gat.data.clips` says how they are
                chosen and cut for evaluation.

        Returns:
            `predictions` [N, C] float32, the probability of each class.

        Raises:
            tf.errors.InvalidArgumentError: They have another shape.
        """
        sides = ", ".join(map(str, self._clip_shape))
        shape = _sent_shape(clips)
        # As text, because shapes of another rank cannot be compared.
        fits = tf.equal(
            tf.strings.reduce_join(tf.strings.as_string(shape[1:]), separator=", "), sides
        )
        is_clips = _require(
            tf.logical_and(fits, shape[0] >= 1),
            f"clips must be [N, {sides}], at least one. Received shape:",
            shape,
        )
        with tf.control_dependencies([is_clips]):
            pixels = tf.identity(clips)
        num_frames = tf.fill([tf.shape(pixels)[0]], self._clip_shape[0])
        features, frame_mask = preprocess({CLIP_FEATURE: pixels}, num_frames)
        logits = self._classifier.value({**features, "frame_mask": frame_mask}, training=False)
        return {"predictions": self._classifier.value.probabilities(logits)}

    def attend(self, example_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predicts as `serve` does, and returns how much attention each frame receives.

        The profile of a clip with n frames is the mean over the heads and the n rows of the global
        attention map; it sums to 1.

        Args:
            example_bytes: [N] serialized `SequenceExample`s.

        Returns:
            The outputs of `serve`; `num_frames` [N] int32; for each feature `attention_<feature>`
            [N, T] float32, T the longest clip of the batch, 0 on padding.

        Raises:
            tf.errors.InvalidArgumentError: As `serve`.

        Reference: GAT, 4.3.1 ("we take mean over the rows of the 2D attention map").
        """
        video_id, features, frame_mask, num_frames = self._parse(example_bytes)
        outputs = self._classifier.value.forward(features, frame_mask, training=False)
        profiles = {
            f"attention_{self._identifiers[name]}": _profile(levels[_GLOBAL], frame_mask)
            for name, levels in outputs.attention_maps.items()
        }
        return {
            "video_id": video_id,
            "num_frames": num_frames,
            **self._top(outputs.logits),
            **profiles,
        }

    def classify_images(
        self, images: tf.Tensor, waveform: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Predicts from the frames of videos, as files of pictures; the signature `images`.

        Args:
            images: string [N, T], a JPEG or PNG file for each frame, at the extractor's rate; empty
                strings after the last frame of each video. Those after the `max_frames` of the run
                are ignored.
            waveform: float32 [N, S], if the run reads sound: 16 kHz, one channel, in [-1, 1], zeros
                after its end.

        Returns:
            `class_indexes` [N, k] int32 and `predictions` [N, k] float32, as `serve`.

        Raises:
            tf.errors.InvalidArgumentError: An input has another shape, or a picture cannot be
                decoded.
        """
        rule = "images must be [N, T]: the frames of a video or more"
        checks = [_require_rank(images, 2, rule)]
        if waveform is not None:
            rule = "waveform must be [N, S]: samples for each video of images"
            checks.append(_require_rank(waveform, 2, rule))
        with tf.control_dependencies(checks):
            images = tf.identity(images)[:, : self._schema.max_frames]
        if waveform is not None:
            rows = tf.shape(waveform)[0]
            has_rows = _require(
                tf.logical_and(
                    tf.equal(rows, tf.shape(images)[0]),
                    tf.reduce_all(tf.math.is_finite(waveform)),
                ),
                "waveform must be finite and have a row for each video of images. Received rows, "
                "videos:",
                rows,
                tf.shape(images)[0],
            )
            with tf.control_dependencies([has_rows]):
                waveform = tf.identity(waveform)
        features, num_frames = self._extractor.value(images, waveform)
        features = {name: features[name] for name in self._schema.feature_names}
        inputs, frame_mask = preprocess(features, num_frames, self._normalize)
        logits = self._classifier.value({**inputs, "frame_mask": frame_mask}, training=False)
        return self._top(logits)

    def warm_up_requests(self) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
        """Yields a request for each signature, about a clip of the greatest length."""
        record = tf.constant([longest_record(self._schema)])
        signatures = self.signatures()
        yield SERVING_DEFAULT, {"example_bytes": record}
        if CLIPS in signatures:
            yield CLIPS, {CLIPS: tf.zeros([1, *self._clip_shape], tf.uint8)}
        if FRAMES in signatures:
            num_frames = longest_clip(self._schema)
            frames = tf.zeros([1, num_frames, sum(self._schema.sizes.values())])
            yield FRAMES, {self.frames_name: frames, "num_frames": tf.constant([[num_frames]])}
        if ATTENTION in signatures:
            yield ATTENTION, {"example_bytes": record}
        if IMAGES in signatures:
            inputs = {"images": tf.constant([[self._extractor.value.example]])}
            if self._extractor.value.has_sound:
                inputs["waveform"] = tf.zeros([1, 1])
            yield IMAGES, inputs
        if TAGS in signatures:
            yield TAGS, {"example_bytes": record}

    def _classify(self, example_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the video_id and the logits [N, C] of records."""
        video_id, features, frame_mask, _ = self._parse(example_bytes)
        inputs = features if frame_mask is None else {**features, "frame_mask": frame_mask}
        return video_id, self._classifier.value(inputs, training=False)

    def _parse(
        self, example_bytes: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor | None, tf.Tensor | None]:
        """Returns video_id, features, frame_mask, num_frames; the last two None at video level."""
        parse = parse_frame_batch if self._schema.frame_level else parse_video_batch
        if self._schema.clips is not None:
            parse = parse_clip_batch
        shape = _sent_shape(example_bytes)
        is_list = _require(
            tf.logical_and(tf.equal(tf.size(shape), 1), tf.size(example_bytes) >= 1),
            "example_bytes must be [N]: a record or more. Received shape:",
            shape,
        )
        with tf.control_dependencies([is_list]):
            example_bytes = tf.identity(example_bytes)
        batch = parse(example_bytes, self._schema, with_labels=False)
        num_frames = batch.get("num_frames")
        features, frame_mask = preprocess(batch["features"], num_frames, self._normalize)
        return batch["video_id"], features, frame_mask, num_frames

    def _top(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = self._classifier.value.probabilities(logits)
        predictions, class_indexes = tf.math.top_k(probabilities, self._top_k)
        return {"class_indexes": class_indexes, "predictions": predictions}


def calibrated(
    classifier: VideoClassifier, logits: tf.Tensor, calibration: Calibration
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the calibrated probabilities [B, C] float32, and whether each is a tag.

    Args:
        classifier: The model that gave the logits.
        logits: [B, C].
        calibration: That of its weights.
    """
    probabilities = classifier.probabilities(tf.cast(logits, tf.float32) / calibration.temperature)
    # Thresholds lie between two float32 numbers.
    thresholds = tf.constant(calibration.thresholds, tf.float64)
    return probabilities, tf.cast(probabilities, tf.float64) >= thresholds


class _Untracked:
    """Hides an object from TensorFlow's tracking of attributes."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _function(method: Any, *specs: tf.TensorSpec) -> Any:
    return tf.function(method, input_signature=specs, autograph=False)


def _require(condition: tf.Tensor, rule: str, *received: tf.Tensor) -> tf.Operation:
    """Fails with `InvalidArgumentError` and this text unless `condition` holds."""
    return tf.debugging.Assert(condition, [rule, *received], summarize=20)


def _require_shape(value: tf.Tensor, rank: int, size: int, rule: str) -> tf.Operation:
    """Fails as `_require` does unless `value` has `rank` axes, the last of them of `size`."""
    shape = _sent_shape(value)
    fits = tf.logical_and(tf.equal(tf.size(shape), rank), tf.reduce_all(shape[rank - 1 :] == size))
    return _require(fits, f"{rule}. Received shape:", shape)


def _require_rank(value: tf.Tensor, rank: int, rule: str) -> tf.Operation:
    """Fails as `_require` does unless `value` has `rank` axes and a row or more."""
    shape = _sent_shape(value)
    fits = tf.logical_and(tf.equal(tf.size(shape), rank), tf.reduce_all(shape[:1] >= 1))
    return _require(fits, f"{rule}. Received shape:", shape)


def _sent_shape(value: tf.Tensor) -> tf.Tensor:
    """Returns the shape of an input, int32 [axes]."""
    # A graph assumes the declared axes of its inputs, but requests may have others.
    return tf.shape(tf.raw_ops.PlaceholderWithDefault(input=value, shape=tf.TensorShape(None)))


def _profile(attention_map: tf.Tensor, frame_mask: tf.Tensor) -> tf.Tensor:
    """Averages maps [B, N, T, T] over heads and real rows: float32 [B, T], 0 on padding."""
    mask = tf.cast(frame_mask, tf.float32)  # [B, T]
    per_row = tf.reduce_mean(tf.cast(attention_map, tf.float32), axis=1)  # [B, T, T]
    total = tf.einsum("bts,bt->bs", per_row, mask)
    return tf.math.divide_no_nan(total * mask, tf.reduce_sum(mask, axis=1, keepdims=True))


def export_saved_model(
    classifier: VideoClassifier,
    schema: RecordSchema,
    export_dir: str | os.PathLike,
    normalize: str = "none",
    top_k: int = 20,
    provenance: Mapping[str, Any] | None = None,
    extractor: Extractor | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Writes the next numeric version in `export_dir`, completely or not at all.

    Existing versions, one of which may be in use, are not changed.

    Args:
        classifier: The trained classifier.
        schema: Schema of the records to be served.
        export_dir: The folder that TensorFlow Serving is pointed at (`--model_base_path`).
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video.
        provenance: Where the weights come from, for `PROVENANCE_FILE`; None: it is not written.
        extractor: Makes the features of pictures, for the signature `images`.
        calibration: Temperature and thresholds, for the signature `tags`.

    Returns:
        The folder of the new version.

    Raises:
        InUseError: Another process exports there.
        WriteError: It cannot be written, for example for lack of space or permission.
    """
    base = Path(export_dir)
    with only_writer_in(base):
        remove_unfinished(base, "[0-9]*")
        for path in base.glob(".partial-*"):  # Left by killed exports of earlier versions.
            shutil.rmtree(path, ignore_errors=True)
        versions = [int(path.name) for path in base.iterdir() if re.fullmatch("[0-9]+", path.name)]
        target = base / str(max(versions, default=0) + 1)
        module = ServingModule(
            without_auxiliary(classifier), schema, normalize, top_k, extractor, calibration
        )
        # TensorFlow has its own error for a full disk. A server ignores names that are not numbers,
        # and so the temporary folder.
        with replacing(target, tf.errors.OpError) as temporary:
            tf.saved_model.save(module, str(temporary), signatures=module.signatures())
            write_warm_up(temporary, module.warm_up_requests())
            if provenance is not None:
                text = json.dumps(provenance, indent=2) + "\n"
                (temporary / PROVENANCE_FILE).write_text(text, encoding="utf-8")
    return target
