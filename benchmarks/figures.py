"""Draws the figures of the pages, docs/images, from their tables and stored results.

`robustness.svg`: GAP over the radius of PGD, from the sceptic's table of docs/RESULTS.md.
`beta.svg`: what the strength of the attention penalty changes, from docs/results/beta.json.
"""

import argparse
import json
import re
import statistics
from pathlib import Path

from results import half_interval, quoted_values

from yt8m_gat.report.drawing.chart import Series, line_chart, standalone

DOCS = Path(__file__).resolve().parents[1] / "docs"
RADIUS_OF_UNNAMED_ROWS = 0.5
# Beyond it every model is close to 0.
LARGEST_RADIUS = 4


def points_of(page: str, section: str) -> dict[str, dict[float, tuple[float, float]]]:
    """Returns model -> radius -> (mean, deviation) of a section's table of attacks; clean is 0."""
    table = page.split(f"\n### {section}\n", 1)[1].split("\n| | SA, CE |", 1)[1].split("\n\n", 1)[0]
    names = ["SA, CE", *(name.strip() for name in table.split("\n", 1)[0].split("|")[:-1])]
    points: dict[str, dict[float, tuple[float, float]]] = {name: {} for name in names}
    for line in table.splitlines():
        row = re.match(r"\| (clean|PGD-20(?:, epsilon ([\d.]+))?) \|(.*)\|$", line)
        if row is None:
            continue
        radius = 0.0 if row[1] == "clean" else float(row[2] or RADIUS_OF_UNNAMED_ROWS)
        for name, cell in zip(names, row[3].split("|"), strict=True):
            mean, deviation = map(float, cell.split("±"))
            points[name].setdefault(radius, (mean, deviation))
    return points


def robustness_chart() -> str:
    """Returns the SVG of `robustness.svg`."""
    points = points_of((DOCS / "RESULTS.md").read_text(encoding="utf-8"), "The sceptic's table")
    radii = sorted(radius for radius in points["ART"] if radius <= LARGEST_RADIUS)
    series = [
        Series(
            name,
            tuple((place, by_radius[radius][0]) for place, radius in enumerate(radii)),
            index,
            # Lines that lie on each other stay visible.
            dash=index % 4,
            intervals=tuple(
                (place, by_radius[radius][0] - by_radius[radius][1], sum(by_radius[radius]))
                for place, radius in enumerate(radii)
            ),
        )
        for index, (name, by_radius) in enumerate(points.items())
    ]
    return line_chart(
        "Real AudioSet frames: GAP under PGD-20",
        "radius per frame (l2); 0 is clean",
        "GAP, mean of 3 seeds",
        series,
        x_ticks={place: f"{radius:g}" for place, radius in enumerate(radii)},
    )


def beta_chart() -> str:
    """Returns the SVG of `beta.svg`; uniform maps stand where the penalty is endless."""
    lines = json.loads((DOCS / "results" / "beta.json").read_text(encoding="utf-8"))["lines"]
    betas = [line["keys"][0].removeprefix("A-ART, beta ") for line in lines[:7]]
    series = []
    for index, (model, title) in enumerate(
        (model, title) for title in ("PGD-20: GAP", "GAP") for model in ("A-ART", "GAT")
    ):
        rows = [f"{model}, beta {beta}" for beta in betas]
        rows += ["ART uniform"] if model == "A-ART" else []
        # By construction 0 at beta 0.
        values = [quoted_values(f"{row} - {rows[0]}, {title}", lines) for row in rows[1:]]
        means = [0.0, *map(statistics.mean, values)]
        series.append(
            Series(
                f"{model}, {'PGD-20' if title.startswith('PGD') else 'clean'}",
                tuple(enumerate(means)),
                index,
                dash=index % 2,
                intervals=tuple(
                    (place, mean - half, mean + half)
                    for place, (mean, half) in enumerate(
                        zip(means[1:], map(half_interval, values), strict=True), start=1
                    )
                ),
            )
        )
    return line_chart(
        "AudioSet: what the attention penalty adds",
        "beta; at the right: ART with uniform attention",
        "GAP minus that at beta 0",
        series,
        x_ticks=dict(enumerate([*betas, "-"])),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=DOCS / "images")
    output_dir = parser.parse_args().output_dir
    for name, draw in (("robustness", robustness_chart), ("beta", beta_chart)):
        (output_dir / f"{name}.svg").write_text(standalone(draw()), encoding="utf-8")


if __name__ == "__main__":
    main()
