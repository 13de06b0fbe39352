"""Draws the README's figure, GAP over the radius of PGD, from the tables of docs/RESULTS.md."""

import argparse
import re
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output_file", default=str(DOCS / "images" / "robustness.svg"))
    args = parser.parse_args()
    points = points_of((DOCS / "RESULTS.md").read_text(encoding="utf-8"), "Three seeds")
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
    svg = line_chart(
        "Real AudioSet frames: GAP under PGD-20",
        "radius per frame (l2); 0 is clean",
        "GAP, mean of 3 seeds",
        series,
        x_ticks={place: f"{radius:g}" for place, radius in enumerate(radii)},
    )
    Path(args.output_file).parent.mkdir(exist_ok=True)
    Path(args.output_file).write_text(standalone(svg), encoding="utf-8")


if __name__ == "__main__":
    main()
