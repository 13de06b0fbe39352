"""A run as a SavedModel for TensorFlow Serving."""

import os
import shutil
import tempfile
from pathlib import Path

import tensorflow as tf

from yt8m_gat.data import RecordSchema, parse_frame_batch, parse_video_batch, preprocess
from yt8m_gat.models import VideoClassifier, without_auxiliary


class ServingModule(tf.Module):
    """What is served: serialized records in, the top predictions out.

    Parsing, dequantizing, normalizing and masking are those of training. Only the classifier's
    variables are tracked, each once; the Keras objects around them stay out of the SavedModel.

    Args:
        classifier: The trained classifier.
        schema: What the records hold.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video.
    """

    def __init__(
        self,
        classifier: VideoClassifier,
        schema: RecordSchema,
        normalize: str = "none",
        top_k: int = 20,
    ) -> None:
        super().__init__()
        # A tuple would be tracked as a data structure too; the values alone are what is saved.
        self.weights = [variable.value for variable in classifier.variables]
        self._classifier = _Untracked(classifier)
        self._schema = schema
        self._normalize = normalize
        self._top_k = min(top_k, classifier.num_classes)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="example_bytes")],
        autograph=False,
    )
    def serve(self, example_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """`serving_default`.

        Args:
            example_bytes: [N] serialized `SequenceExample`s (frame level) or `Example`s.

        Returns:
            `video_id` [N] string, `class_indexes` [N, k] int32 and `predictions` [N, k] float32,
            by descending probability (on ties, the lower class first).
        """
        parse = parse_frame_batch if self._schema.frame_level else parse_video_batch
        batch = parse(example_bytes, self._schema, with_labels=False)
        features, frame_mask = preprocess(
            batch["features"], batch.get("num_frames"), self._normalize
        )
        inputs = features if frame_mask is None else {**features, "frame_mask": frame_mask}
        probabilities = tf.sigmoid(self._classifier.value(inputs, training=False))
        predictions, class_indexes = tf.math.top_k(probabilities, self._top_k)
        return {
            "video_id": batch["video_id"],
            "class_indexes": class_indexes,
            "predictions": predictions,
        }


class _Untracked:
    """Hides an object from TensorFlow's tracking of attributes."""

    def __init__(self, value: VideoClassifier) -> None:
        self.value = value


def export_saved_model(
    classifier: VideoClassifier,
    schema: RecordSchema,
    export_dir: str | os.PathLike,
    normalize: str = "none",
    top_k: int = 20,
) -> Path:
    """Writes the next numeric version below `export_dir`, all of it or nothing.

    Versions that are there already, one of which may be in use, are not touched.

    Args:
        classifier: The trained classifier.
        schema: What the records that will be served hold.
        export_dir: The folder that TensorFlow Serving is pointed at (`--model_base_path`).
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video.

    Returns:
        The folder of the new version.
    """
    base = Path(export_dir)
    base.mkdir(parents=True, exist_ok=True)
    versions = [int(path.name) for path in base.iterdir() if path.name.isdigit()]
    target = base / str(max(versions, default=0) + 1)
    module = ServingModule(without_auxiliary(classifier), schema, normalize, top_k)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=base))
    try:
        tf.saved_model.save(module, str(temporary), signatures={"serving_default": module.serve})
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target
