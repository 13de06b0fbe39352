"""One self-contained HTML page about one or several runs."""

from collections.abc import Callable, Sequence
from typing import Any

from yt8m_gat.report.attention import (
    attention_table,
    clip_parts,
    profile_figures,
    sensitivity_table,
)
from yt8m_gat.report.beside import map_distance_table, published_tables
from yt8m_gat.report.chart import Series, line_chart
from yt8m_gat.report.curves import (
    corruption_curves,
    corruption_table,
    gain_figures,
    robustness_curves,
    training_curves,
)
from yt8m_gat.report.markup import (
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
from yt8m_gat.report.results import class_tables, result_tables, vertical_tables
from yt8m_gat.report.sceptic import sceptic_table, verdict_tables
from yt8m_gat.report.source import MARK, ReportedRun, group_runs


def build_page(runs: Sequence[ReportedRun], title: str = "yt8m_gat: report") -> tuple[str, Figures]:
    """The page and its figures.

    Args:
        runs: At least one; each keeps its colour where runs are compared.
        title: Its heading.

    Returns:
        The HTML, and `{figure name: <svg>}`.
    """
    groups = group_runs(runs)
    robustness, corruption = robustness_curves(runs), corruption_curves(runs)
    profiles, gain, training = profile_figures(groups), gain_figures(runs), training_curves(runs)
    clips, clip_figures = clip_parts(groups)
    attention = [
        *attention_table(groups),
        *map_distance_table(groups),
        *sensitivity_table(groups),
    ]
    if profiles:
        several = " Of several seeds the first." if len(groups) < len(runs) else ""
        attention += [
            note(
                "Below: the attention that each part of the clip receives, mean over the rows of "
                "the map and over the videos, by relative position; 1 is uniform attention. Solid: "
                f"clean; dashed: attacked.{several}"
            ),
            *gallery(profiles),
        ]
    unfinished = [run.name for run in runs if run.evaluation.get("complete") is False]
    body = [
        *(warning(run.warning) for run in runs if run.warning),
        *(
            [note(f"Not finished, rows are still to come: {', '.join(unfinished)}.")]
            if unfinished
            else []
        ),
        *section(
            "Runs",
            "What was trained. A dash: the recipe's own value.",
            [_settings(runs)],
        ),
        *section(
            "Can the attacks be trusted?",
            "A model that hides its gradients looks robust to attacks that follow them. These "
            f"checks would show it; a run that fails one is marked{MARK} wherever it stands.",
            verdict_tables(runs),
        ),
        *section(
            "Results",
            "Percent, over the whole evaluation set; loss, and the norm that the perturbation "
            "really had, as they are. Fooled: clips whose first class is none of their labels. A "
            "dash: not measured.",
            result_tables(runs),
        ),
        *section(
            "Beside the papers",
            "The papers' figures are for YouTube-8M with label spaces of their own: they stand "
            "here for the order of the columns and the size of the differences, not to be equalled "
            "on other data. A run stands in the column of its kind of attention and objective, "
            "whatever the width of its local window. Ours: mean over the matching runs, with their "
            "deviation when there are several; of one run, mean and deviation over its partitions.",
            published_tables(runs),
        ),
        *section(
            "The sceptic's table",
            "Everything that was tried on each kind of model at one radius; mean and deviation "
            "over seeds. The worst: on each run the attack that hurt it most. A map that is "
            "uniform (entropy 1, distance 0) cannot be moved, whatever made it so.",
            sceptic_table(groups),
        ),
        *section(
            "Robustness over epsilon",
            "GAP under each attack; epsilon 0 is the clean evaluation. A curve that rises is a "
            "sign of masked gradients.",
            gallery(robustness),
        ),
        *section(
            "Verticals",
            "Over the classes of one vertical and the videos that have one of them; GAP in "
            "percent, then all metrics of each.",
            vertical_tables(runs),
        ),
        *section(
            "Class by class",
            "Average precision against a baseline on the same videos, clean: the classes that gain "
            "and lose the most. Percent, gains in points.",
            [*(part for _, parts in class_tables(runs) for part in parts), *gallery(gain)],
        ),
        *section(
            "Attention",
            "Entropy over log n is 1, and the distance to uniform 0, for a map that attends to "
            "all frames alike: such a map cannot be moved by an attack.",
            attention,
        ),
        *section(
            "Clips",
            "What the models see in single clips, clean and attacked: the top classes (a tick: a "
            "true label), the attention that each frame receives, and the global map averaged over "
            "the heads, row i what frame i attends to; long clips in blocks.",
            clips,
        ),
        *section(
            "Natural corruptions",
            "GAP over severity; 0 is the clean evaluation.",
            [*corruption_table(groups), *gallery(corruption)],
        ),
        *section("Training", "From metrics.jsonl.", gallery(training)),
    ]
    figures = {**robustness, **gain, **profiles, **clip_figures, **corruption, **training}
    return document(title, body), figures


def build_explanation(explanation: dict[str, Any]) -> tuple[str, Figures]:
    """The page about one label of one clip, and its figures.

    Args:
        explanation: What `yt8m_gat.pipeline.explain` gives.
    """
    figures = {}
    for kind, curves in explanation["curves"].items():
        series = [
            Series(
                name, tuple((float(t), y) for t, y in enumerate(values)), index, len(values) < 61
            )
            for index, (name, values) in enumerate(curves.items())
        ]
        if series:
            name = kind.lower().replace(" ", "_").replace("+", "p")
            figures[name] = line_chart(kind, "frame (one a second)", kind, series)
    label = f"{explanation['label']}"
    if explanation.get("name"):
        label = f"{explanation['name']} ({label})"
    text = (
        f"Label {label} of clip {explanation['video_id']}: probability "
        f"{percent(explanation['probability'])} %. Real frames only; padding is exactly 0 in all. "
        "Saliency is the largest gradient of the label's logit within a frame, SmoothGrad its mean "
        "over noisy copies; Grad-CAM++ is of the contextual frames before pooling and keeps what "
        "speaks for the label alone: it is 0 throughout where nothing does; the attention "
        "profile is the share of attention that a frame gets, whatever the label."
    )
    return document("yt8m_gat: explanation", section("Over time", text, gallery(figures))), figures


def _settings(runs: Sequence[ReportedRun]) -> str:
    rows: list[tuple[str, Callable[[Any], Any]]] = [
        ("model", lambda c: c.model.name),
        ("options", lambda c: ", ".join(f"{k}={shown(v)}" for k, v in c.model.options.items())),
        (
            "features",
            lambda c: ", ".join(f"{name} ({size})" for name, size in c.data.sizes.items()),
        ),
        ("classes", lambda c: c.data.num_classes),
        ("most frames", lambda c: c.data.max_frames if c.data.frame_features else None),
        ("normalize", lambda c: c.data.normalize),
        ("adversarial", lambda c: c.objective.adversarial),
        ("epsilon of training", lambda c: c.objective.epsilon),
        ("norm scope", lambda c: c.objective.norm_scope),
        ("alpha", lambda c: c.objective.alpha),
        ("beta", lambda c: c.objective.beta),
        ("reduction over classes", lambda c: c.objective.class_reduction),
        ("learning rate", lambda c: c.training.base_learning_rate),
        ("batch size", lambda c: c.training.batch_size),
        ("epochs, at most", lambda c: c.training.num_epochs),
        ("seed", lambda c: c.training.seed),
    ]
    return table(
        ["", *(run.title for run in runs)],
        [[name, *(shown(read(run.config)) or "-" for run in runs)] for name, read in rows],
    )
