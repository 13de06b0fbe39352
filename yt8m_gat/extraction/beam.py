"""Extraction on Apache Beam: the clips of a job on any of its runners.

The job is the one of `yt8m_gat.extraction.job`: the process that starts it locks the folder, fits
the constants, and puts the shards together. Beam's workers do what takes the time, decoding and the
models, a clip at a time. Each writes what its clip became into the output folder, which all of them
have to see, as a shared disk, like the videos and the weights of the models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.job import Distribute, made_of
from yt8m_gat.extraction.shards import Made, Task, keep
from yt8m_gat.video.decoding import VideoError


class ExtractClip(beam.DoFn):
    """Makes the record of a clip and keeps it in the folder of the job.

    Args:
        folder: The output folder.
        places: `picture` and `sound` -> file or folder of the weights; None: beside
            `extractor.json`, or none are needed.
        on_bad_file: `skip`: keep the error of a file that cannot be read; `error`: leave it to the
            process that started the job, which stops there.
    """

    def __init__(self, folder: str, places: Mapping[str, str | None], on_bad_file: str) -> None:
        self._folder = folder
        self._places = dict(places)
        self._on_bad_file = on_bad_file

    def setup(self) -> None:
        """Loads the extractor, once a worker."""
        self._extractor = Extractor.load(self._folder, **self._places)

    def process(self, task: Task) -> Iterator[str]:
        """Yields the clip's id."""
        made: Made | VideoError
        try:
            made = made_of(task, self._extractor, Path(self._folder))
        except VideoError as error:
            if self._on_bad_file == "error":
                return
            made = error
        keep(self._folder, task, made)
        yield task.clip_id


def extract_clips(
    pipeline: beam.Pipeline,
    tasks: Sequence[Task],
    folder: str,
    places: Mapping[str, str | None],
    on_bad_file: str = "error",
) -> beam.PCollection[str]:
    """Adds the extraction of clips to a pipeline; see `ExtractClip`.

    Returns:
        The ids of the clips that were made.
    """
    return (
        pipeline
        | "clips" >> beam.Create(list(tasks))
        | "spread" >> beam.Reshuffle()
        | "extract" >> beam.ParDo(ExtractClip(folder, places, on_bad_file))
    )


def on_runner(options: Sequence[str]) -> Distribute:
    """Returns what `extract` needs to make its records on a runner.

    Args:
        options: Flags of Beam: `--runner=...` and others.
    """

    def distribute(
        tasks: Sequence[Task], folder: Path, places: Mapping[str, str | None], on_bad_file: str
    ) -> None:
        # Weights of Keras' own are in no place; those that have one may be copied beside the file.
        given = {
            name: place
            for name, place in places.items()
            if place is not None and Path(place).exists()
        }
        with contextlib.ExitStack() as stack:
            pipeline = stack.enter_context(beam.Pipeline(options=PipelineOptions(list(options))))
            extract_clips(pipeline, tasks, str(folder.resolve()), given, on_bad_file)

    return distribute
