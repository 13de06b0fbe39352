"""The pass over a set that certifies the classifier smoothed by noise."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data.progress import advance, progress_bar
from yt8m_gat.evaluation.evaluator import Evaluator, inputs_of
from yt8m_gat.evaluation.record import EvaluationRecord, as_json
from yt8m_gat.evaluation.traced import traced
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.robustness.certificate import (
    SCOPES,
    CertificateTotals,
    certify,
    default_radii,
    largest_radius,
)
from yt8m_gat.robustness.smoothing import Smoothing, Votes, count_votes


def add_certificates(run: EvaluatedRun, record: EvaluationRecord) -> None:
    """Measures a row of certificates for each sigma, unless the record has that row.

    A row is written as soon as it is measured, and stays until another one of its sigma is, as with
    attacks.
    """
    options, data = run.options, run.config.data
    max_frames = data.max_frames if data.frame_features else 1
    for smoothing in options.smoothings:
        radii = default_radii(smoothing.sigma, len(data.sizes), max_frames)
        if options.radii:
            radii = {scope: [*options.radii] for scope in SCOPES}
        identity = as_json({**dataclasses.asdict(smoothing), "radii": radii})
        rows = record.result.get("certificates", [])
        if any(identity.items() <= row.items() for row in rows):
            continue
        measured = measure_certificates(
            run.evaluator, run.batches(), smoothing, radii, run.num_videos
        )
        others = [row for row in rows if row["sigma"] != smoothing.sigma]
        rows = sorted([*others, {**identity, **measured}], key=lambda row: row["sigma"])
        record.set(certificates=rows)


def measure_certificates(
    evaluator: Evaluator,
    batches: Iterable[dict[str, Any]],
    smoothing: Smoothing,
    radii: Mapping[str, Sequence[float]],
    num_videos: int | None = None,
) -> dict[str, Any]:
    """Certifies the clips of a set, or its rated segments.

    The noise differs for each batch and is the same in every run with that batch size.

    Args:
        evaluator: Of the classifier.
        batches: The batches.
        smoothing: The settings of the certificates.
        radii: See `CertificateTotals`.
        num_videos: Number of videos, for the time left.

    Returns:
        `num_clips`, `passes` (forward passes for a batch), `largest_radius`, and what
        `CertificateTotals.result` returns.

    Raises:
        ConfigError: There was no batch.
    """

    def probabilities(features: Any, mask: Any) -> tf.Tensor:
        return evaluator.classifier.probabilities(evaluator.forward(features, mask).logits)

    def votes_of(inputs: dict[str, Any], seed: tf.Tensor) -> tuple[Votes, tf.Tensor]:
        features, mask, _, _ = evaluator.prepared(inputs)
        weights = inputs.get("label_weights")
        rated = None if weights is None else weights > 0
        num_frames = tf.ones_like(seed) if mask is None else tf.math.count_nonzero(mask, axis=1)
        return count_votes(probabilities, features, mask, smoothing, seed, rated), num_frames

    count: Callable[..., Any] | None = None
    totals: CertificateTotals | None = None
    num_clips, last_id = 0, b""
    with progress_bar(f"certify, sigma {smoothing.sigma:g}", num_videos) as bar:
        for batch in batches:
            inputs = inputs_of(batch)
            if count is None or totals is None:
                count = traced(votes_of, inputs, tf.constant(0))
                totals = CertificateTotals(radii, len(inputs["features"]))
            votes, num_frames = count(inputs, tf.constant(num_clips))
            labels = inputs["labels"].numpy()
            weights = inputs.get("label_weights")
            rated = None if weights is None else weights.numpy() > 0
            certificates = certify(
                Votes(votes.first.numpy(), votes.shown.numpy()), labels, smoothing, rated
            )
            totals.add(
                certificates, labels, np.broadcast_to(num_frames.numpy(), len(labels)), rated
            )
            num_clips += len(labels)
            last_id = advance(bar, batch, last_id)
    if totals is None:
        raise ConfigError("there is nothing to certify: the files hold no records")
    return {
        "num_clips": num_clips,
        "passes": smoothing.selection_samples + smoothing.samples,
        "largest_radius": largest_radius(smoothing),
        **totals.result(),
    }
