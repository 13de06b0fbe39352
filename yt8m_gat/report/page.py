"""One self-contained HTML page about one or several runs."""

from collections.abc import Sequence
from typing import Any

from yt8m_gat.report.answer import answer, differences
from yt8m_gat.report.attention import (
    activation_table,
    attention_table,
    clip_parts,
    profile_figures,
    sensitivity_table,
    true_spans_table,
)
from yt8m_gat.report.beside import map_distance_table, published_tables
from yt8m_gat.report.calibration import calibration_figures, calibration_table
from yt8m_gat.report.certificates import certificate_curves, certificate_tables
from yt8m_gat.report.class_gains import MarkedClasses, class_gain_figures
from yt8m_gat.report.curves import (
    corruption_curves,
    corruption_table,
    gain_figures,
    robustness_curves,
    training_curves,
)
from yt8m_gat.report.drawing.chart import MOST_MARKERS, Series, line_chart
from yt8m_gat.report.drawing.heat_map import heat_maps
from yt8m_gat.report.drawing.markup import (
    Cell,
    Figures,
    document,
    gallery,
    note,
    percent,
    section,
    shown,
    table,
    warning,
)
from yt8m_gat.report.embeddings import embedding_tables
from yt8m_gat.report.results import (
    class_name,
    class_tables,
    paired_tables,
    result_tables,
    vertical_tables,
)
from yt8m_gat.report.sceptic import sceptic_table, verdict_tables
from yt8m_gat.report.settings import clips_words, page_note, provenance_table, settings_table
from yt8m_gat.report.source import MARK, ReportedRun, group_runs


def build_page(
    runs: Sequence[ReportedRun],
    unreadable: Sequence[str] = (),
    command: Sequence[str] = (),
    title: str = "yt8m_gat: report",
    marked: MarkedClasses | None = None,
) -> tuple[str, Figures]:
    """Builds the page and its figures: the answer, the checks, the details, the settings.

    Args:
        runs: At least one; each keeps its colour in all charts that compare runs.
        unreadable: Messages about files that should be on the page and cannot be read.
        command: The command that writes the page.
        title: Its heading.
        marked: Classes that stand out among the gains over a baseline.

    Returns:
        The HTML, and `{figure name: <svg>}`.

    Raises:
        ConfigError: A marked class does not exist, or no run was compared with a baseline.
    """
    groups = group_runs(runs)
    in_short, answer_figures = answer(runs)
    robustness, corruption = robustness_curves(runs), corruption_curves(runs)
    certified = certificate_curves(runs)
    profiles, training = profile_figures(groups), training_curves(runs)
    gain = {**gain_figures(runs), **class_gain_figures(runs, marked)}
    reliability = calibration_figures(runs)
    colors = {run.name: index for index, run in enumerate(runs)}
    clips, clip_figures = clip_parts(groups, colors)
    attention = [
        *attention_table(groups),
        *map_distance_table(groups),
        *activation_table(groups),
        *true_spans_table(groups),
        *sensitivity_table(groups),
    ]
    if profiles:
        several = " Of several seeds, the first one." if len(groups) < len(runs) else ""
        attention += [
            note(
                "Below: the attention that each part of the clip receives, mean over the rows of "
                "the map and over the clips, by relative position; 1 is uniform attention. Solid: "
                f"clean; dashed: attacked. All on one scale.{several}"
            ),
            *gallery(profiles),
        ]
    unfinished = [run.name for run in runs if run.evaluation.get("complete") is False]
    measured = "; ".join(f"{run.name}: {clips_words(run)}" for run in runs if run.clean)
    body = [
        *(warning(f"Not on this page: {message}") for message in unreadable),
        *(warning(run.warning) for run in runs if run.warning),
        *(
            [note(f"Not finished, rows may be missing: {', '.join(unfinished)}.")]
            if unfinished
            else []
        ),
        *(warning(f"Compare with care. {sentence}") for sentence in differences(runs)),
        *section("In short", "", in_short),
        *section(
            "Can the attacks be trusted?",
            "A model that hides its gradients looks robust to attacks that follow them. These "
            f"checks would show it; a run that fails one is marked{MARK} wherever it stands.",
            verdict_tables(runs),
        ),
        *section(
            "The sceptic's table",
            "Everything that was tried on each kind of model at one radius; mean and deviation "
            "over seeds. The worst: on each run the attack that hurt it most. A penalty on maps "
            "that move is cheapest to satisfy with uniform maps (entropy 1, distance 0): beside "
            "such a map, one that hardly moves says nothing.",
            sceptic_table(groups),
        ),
        *section(
            "Robustness over epsilon",
            "GAP under each attack, all on one scale; epsilon 0 is the clean evaluation, a bar is "
            "the interval over the clips. A curve that rises by more than that is a sign of masked "
            "gradients.",
            gallery(robustness),
        ),
        *section(
            "Hidden layers",
            "Each layer's outputs under the attack against those on the clean clips: linear CKA "
            "(1: the rows are as similar to each other as before), cosine and relative l2 distance "
            "of the rows. A row is a real frame, or a clip after pooling.",
            embedding_tables(runs),
        ),
        *section(
            "Certificates",
            "What no perturbation within a radius can change, of the classifier smoothed by noise "
            "(not of the plain one): the share of clips whose first class stays one of their "
            "labels. In the features, over all frames of a clip (joint), or for each frame of "
            "each feature. Abstained: the samples decide nothing.",
            [*certificate_tables(runs), *gallery(certified)],
        ),
        *section(
            "Results",
            f"Percent ({measured}), except for the loss and the norm of the actual perturbation. "
            "Fooled: clips whose first class is none of their labels. A dash: not measured.",
            result_tables(runs),
        ),
        *section(
            "Beside the papers",
            "The papers' figures are for YouTube-8M with label spaces of their own: they stand "
            "here for the order of the columns and the size of the differences, not to be equalled "
            "on other data. A run is in the column of its kind of attention and objective, "
            "regardless of the width of its local window. Ours: mean over the matching runs, with "
            "their deviation if there are several; for one run with partitions, mean and deviation "
            "over those.",
            published_tables(runs),
        ),
        *section(
            "Verticals",
            "Over the classes of one vertical and the clips that have one of them; GAP in "
            "percent, then all metrics of each.",
            vertical_tables(runs),
        ),
        *section(
            "Against a baseline",
            "Differences on the same clips, ours minus the baseline's, each under attacks made on "
            "itself. Percent, differences in points with 95 % bootstrap intervals. p is two-sided: "
            "of GAP by the bootstrap (at least 0.01, with 200 resamples), of Hit@1 by the exact "
            "test of McNemar. Neither covers other seeds of training, nor that several rows are "
            "tested.",
            paired_tables(runs),
        ),
        *section(
            "Class by class",
            "Average precision against a baseline on the same clips, clean: of the classes with "
            "enough positives those that gain and lose the most. Percent, gains in points, with 95 "
            "% bootstrap intervals of the difference. The extremes of many classes look larger "
            "than they are, because they were selected for their size.",
            [*class_tables(runs), *gallery(gain)],
        ),
        *section(
            "Attention",
            "These figures are of the global maps. Entropy over log n is 1, and the distance to "
            "uniform 0, for a map that attends to all frames alike.",
            attention,
        ),
        *section(
            "Clips",
            "Single clips, clean and attacked: the top classes (a tick: a true label), the "
            "attention that each frame receives, and the global map averaged over the heads, where "
            "row i shows what frame i attends to; long clips are in blocks. The charts of a clip "
            "share one scale.",
            clips,
        ),
        *section(
            "Natural corruptions",
            "GAP over severity, all on one scale; 0 is the clean evaluation.",
            [*corruption_table(groups), *gallery(corruption)],
        ),
        *section(
            "Calibration",
            "Whether a probability is the share of clips that it is true for. Temperature: the "
            "number that logits are divided by. ECE: the mean distance of probability and share, "
            "over all pairs of clip and class, and over the likeliest class of each clip. Before "
            "and after the division, on the clips that it was fitted on.",
            [*calibration_table(runs), *gallery(reliability)],
        ),
        *section(
            "Training",
            "As logged in metrics.jsonl, over the optimizer's steps. Losses share an axis where "
            "they are the same function of the outputs; between charts they are not comparable.",
            gallery(training),
        ),
        *section("Where the figures come from", "", [*provenance_table(runs), page_note(command)]),
        *section("Settings", "Of training. A dash: the run does not use it.", settings_table(runs)),
    ]
    figures = {
        **answer_figures,
        **robustness,
        **certified,
        **gain,
        **profiles,
        **clip_figures,
        **corruption,
        **reliability,
        **training,
    }
    return document(title, body), figures


def _similarity_and_heads(explanation: dict[str, Any]) -> Figures:
    """Returns, for each feature, the similarity of its frames and the maps of single heads."""
    num_frames, figures = explanation["num_frames"], {}
    for feature, rows in explanation["similarity"].items():
        figures[f"similarity_{feature}"] = heat_maps(
            f"Similarity of frames, {feature}", {feature: rows}, num_frames, similarities=True
        )
        if heads := explanation["heads"].get(feature):
            figures[f"heads_{feature}"] = heat_maps(
                f"Attention of single heads, {feature}",
                {f"head {number + 1}": head for number, head in enumerate(heads)},
                num_frames,
            )
    return figures


def build_explanation(
    explanation: dict[str, Any], command: Sequence[str] = ()
) -> tuple[str, Figures]:
    """Returns the page about one label of one clip, and its figures.

    Args:
        explanation: The result of `yt8m_gat.pipeline.explain`.
        command: The command that writes the page.
    """
    figures = {}
    for kind, curves in explanation["curves"].items():
        series = [
            Series(
                name,
                tuple((float(t), y) for t, y in enumerate(values)),
                index,
                len(values) <= MOST_MARKERS,
            )
            for index, (name, values) in enumerate(curves.items())
        ]
        if series:
            name = kind.lower().replace(" ", "_").replace("+", "p")
            figures[name] = line_chart(kind, "frame", kind, series)
    beside = _similarity_and_heads(explanation)
    label = class_name(explanation["label"], explanation["name"])
    provenance = explanation["provenance"]
    digest = f"SHA-256 {provenance['weights']}"
    step = [] if provenance["step"] is None else [f"step {provenance['step']}"]
    options = [f"{key}={shown(value)}" for key, value in explanation["options"].items()]
    true = [class_name(*entry) for entry in explanation["labels"]]
    facts = [
        ["clip", explanation["video_id"]],
        ["true labels", ", ".join(true) or "none"],
        ["explained", f"{label}: probability {percent(explanation['probability'])} %"],
        ["run", provenance["train_dir"]],
        ["model", ", ".join([explanation["model"], *options])],
        ["weights", ", ".join([provenance["checkpoint"], *step, digest])],
        ["files", explanation["files"]],
    ]
    true_classes = {index for index, _ in explanation["labels"]}
    top = [
        [
            class_name(index, name) + ("\u00a0✓" if index in true_classes else ""),
            percent(probability),
        ]
        for index, name, probability in explanation["top"]
    ]
    text = (
        "Real frames only; padding is exactly 0 in all. "
        "Saliency is the largest gradient of the label's logit within a frame, SmoothGrad its mean "
        "over noisy copies; Grad-CAM++ is of the contextual frames before pooling and keeps only "
        "evidence for the label: it is 0 throughout if there is none; the attention profile is the "
        "share of attention that a frame gets, for any label. Each has its own unit."
    )
    body = [
        table(["", "what"], [[name, Cell(value, "name")] for name, value in facts]),
        *section(
            "What the model says",
            "The likeliest classes; a tick: a true label.",
            [table(["class", "probability, %"], top)],
        ),
        *section(f"Why {label}", text, gallery(figures)),
        *section(
            "Which frames are alike, and which are attended to",
            "Cosine similarity of the frames as the model gets them, beside the global attention "
            "map of each head: row i is frame i. A head that follows the similarity has its "
            "blocks; vertical lines are frames to which all others attend. Long clips are shown "
            "in blocks of frames.",
            gallery(beside),
        ),
        page_note(command),
    ]
    return document("yt8m_gat: explanation", body), {**figures, **beside}
