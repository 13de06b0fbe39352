"""The jobs of the command line, one per file, built from the other subpackages.

Only this subpackage may import training, evaluation and export together.
"""

import contextlib

from yt8m_gat import cli
from yt8m_gat.data import BadRecordError, TooManyBadRecordsError
from yt8m_gat.pipeline.calibration import calibrate
from yt8m_gat.pipeline.ensembling import make_ensemble, make_soup
from yt8m_gat.pipeline.evaluation import evaluate
from yt8m_gat.pipeline.evaluation_of_each_state import evaluate_each
from yt8m_gat.pipeline.explanation import explain
from yt8m_gat.pipeline.exporting import export, export_run
from yt8m_gat.pipeline.inference import infer, model_folder
from yt8m_gat.pipeline.run_evaluator import attention_figures, build_evaluator
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.pipeline.training import train
from yt8m_gat.pipeline.video_attacks import attack_videos
from yt8m_gat.pipeline.video_inference import infer_videos
from yt8m_gat.pipeline.watch import watch
from yt8m_gat.prediction.submission import partial_file
from yt8m_gat.training import NonFiniteLossError, WorkerLostError
from yt8m_gat.video.decoding import VideoError

__all__ = [
    "BadRecordError",
    "attack_videos",
    "attention_figures",
    "build_evaluator",
    "calibrate",
    "evaluate",
    "evaluate_each",
    "explain",
    "export",
    "export_run",
    "infer",
    "infer_videos",
    "make_ensemble",
    "make_soup",
    "model_folder",
    "partial_file",
    "read_schema",
    "reported_errors",
    "train",
    "watch",
]


def reported_errors() -> contextlib.AbstractContextManager[None]:
    """Returns `cli.reported_errors` extended by all errors of these jobs that users can fix."""
    return cli.reported_errors(
        BadRecordError, TooManyBadRecordsError, NonFiniteLossError, VideoError, WorkerLostError
    )
