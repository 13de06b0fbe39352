"""The job that evaluates a run, clean and perturbed."""

import sys
from typing import Any

from yt8m_gat.evaluation.record import EvaluationRecord
from yt8m_gat.locks import only_writer
from yt8m_gat.pipeline.attack_plan import plan_attacks
from yt8m_gat.pipeline.baseline_comparison import add_comparison
from yt8m_gat.pipeline.certificate_measures import add_certificates
from yt8m_gat.pipeline.embedding_measures import add_embeddings
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.evaluation_rows import EvaluationRows
from yt8m_gat.pipeline.evaluation_sections import (
    add_class_activation,
    add_clips,
    add_gradients,
    add_sensitivity,
    add_survivors,
    add_true_spans,
)
from yt8m_gat.pipeline.run_evaluator import total_map_distance
from yt8m_gat.pipeline.surrogate_training import build_surrogate
from yt8m_gat.robustness.sanity import radius_scale, sanity_checks
from yt8m_gat.robustness.worst_case import worst_cases
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable


def evaluate(folder: RunFolder, **options: Any) -> dict[str, Any]:
    """Measures a trained run: clean, under attack, corrupted, and what else the options ask for.

    Args:
        folder: The run.
        **options: See `EvaluationOptions`.

    Returns:
        What `EvaluationRecord` describes; with `output_file`, also written there as JSON, row by
        row. A later call with the same settings does not measure the rows in that file again.

    Raises:
        ConfigError: An option is invalid, or impossible for a video-level run; raised before any
            work where that can be known.
        InUseError: Another evaluation writes `output_file`.
    """
    checked = EvaluationOptions(**options)
    with only_writer(checked.output_file):
        return _Evaluation(folder, checked).run()


class _Evaluation:
    """One evaluation of one run: the constructor reads and checks everything, `run` measures."""

    def __init__(self, folder: RunFolder, options: EvaluationOptions) -> None:
        self.options = options
        self.target = target = EvaluatedRun(folder, options)
        map_distance = total_map_distance if target.has_global_maps else None
        self.planned = plan_attacks(
            options,
            target.specs,
            target.config,
            target.source,
            map_distance,
            build_surrogate(target),
        )
        self.record = EvaluationRecord(
            target.settings(),
            options.output_file,
            target.groups,
            options.start_over,
            target.provenance(),
        )
        self.rows = EvaluationRows(target, self.record, attacked=bool(self.planned))

    def run(self) -> dict[str, Any]:
        """Measures row by row and section by section, and returns the record."""
        left_out = self.target.left_out
        for why in dict.fromkeys(left_out.values()):
            names = [name for name in left_out if left_out[name] == why]
            verb = "is" if len(names) == 1 else "are"
            print(f"{', '.join(names)} {verb} left out: {why}", file=sys.stderr)
        self._measure()
        if left_out or "left_out" in self.record.result:
            self.record.set(left_out=left_out)
        self._judge()
        # Each pass leaves out the same records, so the last pass's summary is enough.
        reader = self.target.reader
        if reader is not None and reader.skipped is not None:
            print(reader.skipped.summary(), file=sys.stderr)
        result = self.record.finish()
        if earlier := self.rows.names_of_earlier(result):
            print(
                f"{self.options.output_file}: these rows are an earlier call's, not measured "
                f"again: {', '.join(map(printable, earlier))} (--start_over measures all again)",
                file=sys.stderr,
            )
        return result

    def _measure(self) -> None:
        """Measures all rows and sections that the options ask for and the record does not have."""
        options, target, record = self.options, self.target, self.record
        self.rows.add_clean()
        if options.worst_case_only:
            add_survivors(target, record, self.planned)
        else:
            for index, planned in enumerate(self.planned):
                self.rows.add_attack(planned, with_profiles=index == 0)
        if options.sanity_checks or options.protocol:
            add_gradients(target, record)
        for corruption in options.corruptions_on(target.config.data.clips is not None):
            self.rows.add_corruption(corruption)
        if options.certify:
            add_certificates(target, record)
        if options.attention:
            add_sensitivity(target, record)
        if options.embeddings:
            add_embeddings(target, record, self.planned[0])
        if options.class_activation:
            add_class_activation(target, record)
        if options.true_spans is not None:
            add_true_spans(target, record)
        if options.clips or options.num_clips:
            add_clips(target, record, self.planned[0] if self.planned else None)
        if target.baseline is not None:
            add_comparison(target, record, self.rows.clean_measurement, self.planned)

    def _judge(self) -> None:
        """Computes worst cases and sanity checks from all rows, those of earlier calls included."""
        options, result = self.options, self.record.result
        data, in_segments = self.target.config.data, self.target.segments is not None
        survivors = result.get("survivors", [])
        worst = worst_cases(result["clean"], result["attacks"], survivors)
        if worst or "worst_cases" in result:
            self.record.set(worst_cases=worst)
        if options.sanity_checks or options.protocol or "sanity" in result:
            verdicts = sanity_checks(
                result["clean"],
                result["attacks"],
                max_frames=data.max_frames,
                num_features=len(data.sizes),
                can_reach_zero=not in_segments,
                scale=radius_scale(data.clips.crop_size if data.clips else None),
                gradients=result.get("gradients"),
                # Segments are rated for few classes, so frequencies say nothing of them.
                positives=None if in_segments else result["classes"]["positives"],
                top_k=options.top_k,
            )
            self.record.set(sanity=verdicts)
