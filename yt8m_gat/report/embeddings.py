"""How far hidden layers move under attack."""

from collections.abc import Sequence

from yt8m_gat.report.drawing.markup import plain, table
from yt8m_gat.report.source import ReportedRun
from yt8m_gat.report.spec import spec_title


def embedding_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a row per run and layer, in the order in which the layers are called."""
    rows = []
    for run in runs:
        section = run.evaluation.get("embeddings") or {}
        for layer in section.get("layers", []):
            figures = (layer.get(name) for name in ("size", "cka", "cosine", "relative_l2"))
            under = f"{spec_title(section['attack'])}, {plain(section['epsilon'])}"
            rows.append([run.title, under, layer["layer"], *map(plain, figures)])
    heads = ["run", "attack, epsilon", "layer", "size", "CKA", "cosine", "relative l2"]
    return [table(heads, rows)] if rows else []
