"""A trained run in Python: its model, its predictions, its evaluation."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    Reader,
    RecordSchema,
    count_records,
    find_files,
)
from yt8m_gat.data.arrays import array_batches, write_records
from yt8m_gat.data.parsing import Batch
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.models import VideoClassifier
from yt8m_gat.paths import require_own_files
from yt8m_gat.pipeline.evaluation import evaluate
from yt8m_gat.pipeline.run_extractor import check_extractor, place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, on_segments, read_schema
from yt8m_gat.pipeline.video_prediction import VideoClassification
from yt8m_gat.prediction.inference import (
    embedding_function,
    predictions,
    probability_function,
)
from yt8m_gat.prediction.submission import best_classes
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.video.clips import Clip, clip_ids
from yt8m_gat.video.decoding import VideoError
from yt8m_gat.weights import load


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A trained run; `yt8m_gat.load_run` makes it.

    Attributes:
        folder: Its folder.
        config: Its configuration.
        schema: The schema of its records, for `yt8m_gat.read` and `yt8m_gat.write_records`.
        model: The trained classifier, a Keras model that returns logits [B, C].
        label_names: Class -> name, for the classes that have one.
        checkpoint: Which state of the run this is, `best` or `last`.
        step: The training step of its weights; None: their file does not record it.
        trust_code: Whether code that a run names may be executed, see `load_run`.
        extractor_path: The extractor for videos; None: the one that the run keeps.
    """

    folder: RunFolder
    config: RunConfig
    schema: RecordSchema
    model: VideoClassifier
    label_names: Mapping[int, str]
    checkpoint: str
    step: int | None
    trust_code: bool = False
    extractor_path: str | os.PathLike | None = None

    def __repr__(self) -> str:
        return (
            f"Run({str(self.folder.path)!r}, checkpoint={self.checkpoint!r}, step={self.step}: "
            f"{self.config.model.name}, {self.config.data.num_classes} classes)"
        )

    def predict(
        self,
        data: str | Sequence[str] | Mapping[str, Sequence[Any]],
        *,
        ids: Sequence[str] | None = None,
        top_k: int | None = 20,
        batch_size: int = 512,
        segment_labels: bool | None = None,
    ) -> pd.DataFrame:
        """Predicts the most probable classes of each video.

        Args:
            data: Records, as glob patterns in a list or separated by commas; or arrays, as feature
                name -> one array per clip. Frame level: [T, size], uint8 as YouTube-8M stores its
                frames (`yt8m_gat.dequantize` gives the value of each byte), or floats that are
                dequantized already; T may differ from clip to clip. Video level: floats [size].
                Clips are cut to the number of frames that the model was trained for, as records
                are.
            ids: With arrays, the ids of the clips; by default their indices, from 0.
            top_k: Classes per video; None: all.
            batch_size: Clips at once.
            segment_labels: Whether each window of 5 frames of the records is predicted by itself;
                None: as in training. Arrays are predicted whole.

        Returns:
            The columns `video_id`, `label` (the class), `name` (empty where it has none) and
            `probability`; for segments also `segment_start_time`, in seconds. The videos are in
            the order of the data, the classes of each by descending probability and, where that is
            equal, ascending class. The values are those that `inference.py` writes.

        Raises:
            ConfigError: No file matches.
            ValueError: An array does not fit the run, or a probability is not finite.
            BadRecordError: A record cannot be read.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be positive, or None for all. Received: top_k={top_k}")
        if isinstance(data, Mapping):
            if segment_labels:
                raise ValueError(
                    "`segment_labels` cuts records into windows, and arrays are predicted whole. "
                    "Give arrays of the 5 frames of each window"
                )
            batches = array_batches(data, self.schema, batch_size, ids)
            return self._table(batches, len(next(iter(data.values()))), top_k)
        if ids is not None:
            raise ValueError("`ids` name clips given as arrays; records have ids of their own")
        segments = on_segments(self.config, segment_labels)
        files = find_files(data, "data")
        check_extractor(self.folder, files, "data")
        examples = {"segments": "windows"} if segments else {"with_labels": False}
        reader = Reader(files, self.schema, batch_size, **examples)
        return self._table(reader, count_records(files), top_k)

    @functools.cached_property
    def _classify(self) -> Callable[..., Any]:
        """The traced function, cached so that only the first `predict` waits for tracing."""
        return probability_function(self.model, self.config.data.normalize)

    def _table(self, batches: Iterable[Batch], total: int, top_k: int | None) -> pd.DataFrame:
        tables = []
        for batch, probabilities in predictions(self._classify, batches, total):
            video_ids = [video_id.decode() for video_id in batch["video_id"].numpy()]
            classes, scores = best_classes(video_ids, probabilities, top_k)
            num_classes = classes.shape[1]
            columns = {"video_id": np.repeat(video_ids, num_classes)}
            if "segment_start_time" in batch:
                start_times = batch["segment_start_time"].numpy()
                columns["segment_start_time"] = np.repeat(start_times, num_classes)
            columns["label"] = classes.ravel()
            columns["name"] = [self.label_names.get(label, "") for label in classes.ravel()]
            columns["probability"] = scores.ravel()
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    def embeddings(
        self,
        data: str | Sequence[str] | Mapping[str, Sequence[Any]],
        *,
        ids: Sequence[str] | None = None,
        batch_size: int = 512,
    ) -> tuple[list[str], np.ndarray]:
        """Returns the ids of whole clips, and the vectors that the model's head sees of them.

        Args:
            data: See `predict`.
            ids: Likewise.
            batch_size: Clips at once.

        Returns:
            The ids, and float32 [N, E], see `yt8m_gat.models.ModelOutputs.embedding`.

        Raises:
            ConfigError: The model has no embedding, or no file matches.
            ValueError: An array does not fit the run.
            BadRecordError: A record cannot be read.
        """
        if isinstance(data, Mapping):
            batches = array_batches(data, self.schema, batch_size, ids)
            pairs = self._embedded(batches, len(next(iter(data.values()))))
        elif ids is not None:
            raise ValueError("`ids` name clips given as arrays; records have ids of their own")
        else:
            pairs = self._embedded_records(data, batch_size, self.schema, with_labels=False)
        video_ids, vectors = [], []
        for batch, of_batch in pairs:
            video_ids += [video_id.decode() for video_id in batch["video_id"].numpy()]
            vectors.append(of_batch)
        return video_ids, np.concatenate(vectors)

    def write_embeddings(
        self,
        data: str | Sequence[str],
        path: str | os.PathLike,
        *,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        batch_size: int = 512,
    ) -> RecordSchema:
        """Writes the embeddings of records, with their labels, as video-level records.

        Any video-level model can then be trained on them: `--model=LogisticModel` is a linear
        probe. The labels are those of the records, whatever label map the run has.

        Args:
            data: Records, as glob patterns in a list or separated by commas.
            path: The file, created or replaced.
            transform: Applied to embeddings [B, E] first, for example to standardize them.
            batch_size: Clips at once.

        Returns:
            The schema of the file: `embedding`, floats [E].

        Raises:
            ConfigError: The model has no embedding, no file matches, or the path is not local or
                one of the records.
            ValueError: Two records have one id.
            BadRecordError: A record cannot be read.
            WriteError: The file cannot be written.
        """
        num_classes = self.schema.num_source_classes
        source = dataclasses.replace(self.schema, num_classes=num_classes, label_map=None)
        files = find_files(data, "data")
        records = dict.fromkeys(files, "a file of the records that are read")
        require_own_files({"path": path}, {**self.folder.own_files(), **records})
        pairs = self._embedded_records(files, batch_size, source, with_labels=True)
        schema = RecordSchema(
            {"embedding": self.model.embedding_size}, num_classes, frame_level=False
        )
        examples = (
            {"id": video_id, "labels": np.flatnonzero(labels), "embedding": vector}
            for batch, vectors in pairs
            for video_id, labels, vector in zip(
                batch["video_id"].numpy(),
                batch["labels"].numpy(),
                vectors if transform is None else transform(vectors),
                strict=True,
            )
        )
        write_records(path, examples, schema)
        return schema

    def _embedded_records(
        self, data: str | Sequence[str], batch_size: int, schema: RecordSchema, with_labels: bool
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        files = find_files(data, "data")
        check_extractor(self.folder, files, "data")
        reader = Reader(files, schema, batch_size, with_labels=with_labels)
        return self._embedded(reader, count_records(files))

    def _embedded(self, batches: Iterable[Batch], total: int) -> Iterator[tuple[Batch, np.ndarray]]:
        if self.model.embedding_size is None:
            raise ConfigError(
                f"--model={self.config.model.name} has no embedding: its head sees features, or "
                "means of them, as they are"
            )
        return predictions(self._embed, batches, total)

    @functools.cached_property
    def _embed(self) -> Callable[..., Any]:
        """Like `_classify`."""
        return embedding_function(self.model, self.config.data.normalize)

    def predict_video(
        self,
        paths: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        top_k: int | None = 20,
        start: float = 0.0,
        end: float | None = None,
    ) -> pd.DataFrame:
        """Predicts the most probable classes of video files, with the extractor of the run.

        Args:
            paths: A video file, or several.
            top_k: Classes per video; None: all.
            start: Where each video begins, in seconds.
            end: Where it ends; None: at the end of its file.

        Returns:
            The columns of `predict`, and `seconds`: the stretches of the video that carried the
            class, a list of (start, end), see `yt8m_gat.explanation.class_activation`. A video's
            id is the name of its file without folder and ending, with the ending or the folders
            where two would have the same.

        Raises:
            ConfigError: The run has no extractor and none was named, or it does not fit.
            VideoError: A video cannot be read.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be positive, or None for all. Received: top_k={top_k}")
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        files = [os.fspath(path) for path in paths]
        if not files:
            raise ValueError("`paths` must name at least one video. Received: none")
        clips = [Clip(path, start=start, end=end) for path in files]
        classify = VideoClassification(self.model, self.schema, self.config.data.normalize, top_k)
        tables = []
        names = clip_ids([Clip(path) for path in files])
        for name, path, extracted in zip(names, files, self.extractor.many(clips), strict=True):
            if isinstance(extracted, VideoError):
                raise extracted
            for fault in extracted.faults:
                warnings.warn(f"{path}: {fault}", stacklevel=2)
            video = classify(extracted, name)
            columns = {
                "video_id": name,
                "label": video.labels,
                "name": [self.label_names.get(label, "") for label in video.labels],
                "probability": video.probabilities,
                "seconds": [
                    [(span.start, span.end) for span in video.spans(place)]
                    for place in range(len(video.labels))
                ],
            }
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    @functools.cached_property
    def extractor(self) -> Extractor:
        """What makes the run's features of videos: its own extractor, or the one given."""
        place = place_of_extractor(self.folder, self.config, self.extractor_path, self.trust_code)
        return Extractor.load(place, features=self.config.data.feature_names)

    def evaluate(self, eval_data_pattern: str, **options: Any) -> dict[str, Any]:
        """Measures what `eval.py` measures: clean, and under the attacks in `options`.

        Args:
            eval_data_pattern: The records.
            **options: See `yt8m_gat.pipeline.evaluation_options.EvaluationOptions`, for example
                `attacks=["fgm", "pgd"]` and `epsilons=[0.5]`.

        Returns:
            The figures; those of the clean clips are under `clean`.
        """
        return evaluate(
            self.folder,
            eval_data_pattern=eval_data_pattern,
            checkpoint=self.checkpoint,
            **{"trust_code": self.trust_code, **options},
        )


def load_run(
    train_dir: str | os.PathLike,
    checkpoint: str = "best",
    *,
    label_names: str | os.PathLike | None = None,
    trust_code: bool = False,
    extractor: str | os.PathLike | None = None,
) -> Run:
    """Loads the run that `train.py` left in a folder, ready to predict.

    Args:
        train_dir: The run folder.
        checkpoint: `best` (by validation GAP) or `last` (newest checkpoint), as for `eval.py`.
        label_names: CSV file that names the classes; by default the run's label map, or the names
            that were beside its training records, if it has either.
        trust_code: Run the code that the run names, such as a custom model or loss
            (docs/EXTENDING.md), and load the extractor of an archive, of any kind.
        extractor: An `extractor.json`, or its folder, for `predict_video`, if the run has none.

    Raises:
        FileNotFoundError: The run has no such weights yet.
        ConfigError: The folder holds no run, its weights are damaged, or the file of names cannot
            be read.
        UntrustedCodeError: The run names code that is not trusted.
    """
    folder = RunFolder(train_dir)
    config = RunConfig.load(folder.path)
    schema = read_schema(folder, config)
    names = class_names(folder, schema, label_names)
    loaded = load.load_run(folder.path, config, checkpoint, trust_code)
    return Run(
        folder,
        config,
        schema,
        loaded.classifier,
        names,
        checkpoint,
        loaded.step,
        trust_code,
        extractor,
    )
