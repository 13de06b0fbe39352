"""The sceptic's sections: whether the attacks can be trusted, and the results of all of them."""

from collections.abc import Sequence

from yt8m_gat.report.drawing.markup import Cell, folded, mean_and_deviation, table, warning
from yt8m_gat.report.source import MARK, ReportedRun, RunGroup, number
from yt8m_gat.report.spec import Ball, attack_title, ball_of, spec_order
from yt8m_gat.report.strongest import main_ball, strongest

_CHECKS = {
    "trained": "the model has learned more than how frequent the labels are",
    "deterministic": "two passes on one clip agree",
    "gradient": "the gradient is that of the loss",
    "logit_scale": "no factor on the logits lowers the loss",
    "loss_over_epsilon": "the loss never falls as epsilon grows",
    "pgd_over_single_step": "PGD is at least as strong as one step",
    "unbounded": "an attack without bounds leaves no Hit@1",
    "white_box_over_transfer": "white box is at least as strong as transfer",
    "white_box_over_gradient_free": "white box is at least as strong as a gradient-free search",
    "white_box_over_decisions": "white box is at least as strong as a search by decisions",
    "white_box_over_noise": "white box is at least as strong as noise",
    "enough_steps": "more steps change nothing",
    "zero_gradients": "hardly any clip has a gradient of nearly zero",
}
_KINDS = {"pass": "", "fail": "bad", "warning": "bad", "undertrained": "bad"}


def verdict_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a row per check, a column per run; below, the sentences with the numbers."""
    checked = [run for run in runs if run.verdicts]
    if not checked:
        return []
    checks = dict.fromkeys(check for run in checked for check in run.verdicts)
    rows = []
    for check in checks:
        verdicts = [run.verdicts.get(check, {}).get("verdict", "not run") for run in checked]
        cells = [
            Cell(verdict.upper() if verdict == "fail" else verdict, _KINDS.get(verdict, "quiet"))
            for verdict in verdicts
        ]
        rows.append([_CHECKS.get(check, check), *cells])
    parts = []
    suspects = [run.name for run in checked if run.suspect]
    if suspects:
        text = (
            f"{', '.join(suspects)}: a check fails. Robustness figures of these runs may come from "
            f"gradients that are hidden rather than from robustness; they are marked{MARK} "
            "wherever they stand."
        )
        parts.append(warning(text))
    parts.append(table(["check", *(run.title for run in checked)], rows))
    for run in checked:
        details = [
            [_CHECKS.get(check, check), row["verdict"], Cell(row["detail"], "text")]
            for check, row in run.verdicts.items()
        ]
        parts += folded(
            f"{run.title}: the numbers",
            [table(["check", "verdict", Cell("why", "text")], details)],
            run.suspect,
        )
    return parts


def sceptic_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of GAP and related figures: a row per attack, a column per kind of run."""
    runs = [run for group in groups for run in group.runs]
    ball = main_ball([run.attacks for run in runs])
    titles = {
        row["attack"]: attack_title(row)
        for run in reversed(runs)
        for row in run.attacks
        if ball is not None and number(row["epsilon"]) == ball.epsilon
    }
    if ball is None or len(titles) < 2:
        return []
    rows = [["clean", *(_gaps(group, None, None) for group in groups)]]
    rows += [
        [titles[spec], *(_gaps(group, spec, ball.epsilon) for group in groups)]
        for spec in sorted(titles, key=spec_order)
    ]
    rows.append([f"the worst of all at {ball.words}", *(_worst(g, ball) for g in groups)])
    alike = [
        other
        for run in runs
        for row in run.attacks
        if (other := ball_of(row)) is not None
        and other._replace(epsilon=0.0) == ball._replace(epsilon=0.0)
    ]
    largest = max(alike, key=lambda other: other.epsilon)
    classes = ["", *("" for _ in titles), "ours"]
    if largest.epsilon > ball.epsilon:
        rows.append(
            [
                f"the worst of all at epsilon {largest.epsilon:g}",
                *(_worst(g, largest) for g in groups),
            ]
        )
        classes.append("ours")
    keys = ["zero_gradient_share"]
    for run in runs:
        for prefix in ("attention_entropy_", "distance_to_uniform_"):
            keys += [k for k in run.clean if k.startswith(prefix) and k not in keys]
    for key in keys:
        if any(key in run.clean for run in runs):
            rows.append([_words(key), *(_clean(group, key) for group in groups)])
            classes.append("")
    for key, words in (
        ("rho_mean", "DeepFool, mean rho of clips that flipped"),
        ("rho_median", "DeepFool, median rho of clips that flipped"),
        ("share_not_flipped", "DeepFool, clips not flipped, %"),
    ):
        values = [[_deepfool(run, key) for run in group.runs] for group in groups]
        if any(value is not None for of_group in values for value in of_group):
            in_percent = key == "share_not_flipped"
            rows.append([words, *(mean_and_deviation(v, in_percent) for v in values)])
            classes.append("")
    heads = [f"GAP, %, epsilon {ball.epsilon:g}", *(group.title for group in groups)]
    return [table(heads, rows, classes)]


def _words(key: str) -> str:
    if key == "zero_gradient_share":
        return "clips with a gradient of zero, %"
    for prefix, words in (
        ("attention_entropy_", "attention entropy / log n"),
        ("distance_to_uniform_", "distance of the map to uniform"),
    ):
        if key.startswith(prefix):
            return f"{words}, {key.removeprefix(prefix)}"
    return key


def _clean(group: RunGroup, key: str) -> str:
    values = [run.clean.get(key) for run in group.runs]
    return mean_and_deviation(values, in_percent=key == "zero_gradient_share")


def _gaps(group: RunGroup, spec: str | None, epsilon: float | None) -> str:
    rows = [run.clean if spec is None else run.attacked(spec, epsilon) for run in group.runs]
    return mean_and_deviation([row.get("gap") for row in rows])


def _worst(group: RunGroup, ball: Ball) -> str:
    """Averages over the runs the lowest GAP that any attack within this ball reached on each."""
    return mean_and_deviation([strongest(run.attacks, ball).get("gap") for run in group.runs])


def _deepfool(run: ReportedRun, key: str) -> float | None:
    for row in run.attacks:
        if row["attack"].split(":")[0] == "deepfool":
            return number(row.get(key))
    return None
