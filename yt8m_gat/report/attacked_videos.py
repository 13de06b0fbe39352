"""One self-contained HTML page about attacks on the pixels and sound of videos."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yt8m_gat.report.drawing.markup import (
    Cell,
    document,
    folded,
    note,
    plain,
    section,
    table,
    with_interval,
)
from yt8m_gat.report.settings import page_note

_STYLE = """
.film { overflow-x: auto; margin: .3rem 0 1rem; }
.film table td { padding: .1rem; border: 0; text-align: left; }
.film img { display: block; width: 9rem; height: auto; image-rendering: pixelated; }
.film th { font-weight: 400; border: 0; vertical-align: middle; white-space: normal; width: 6rem; }
"""
_SIDES = ("clean", "attacked", "difference")


def attack_words(row: Mapping[str, Any]) -> str:
    """Returns an attack in words: `pixels, pgd_linf, 2 levels`, or `sound, pgd, 30 dB`."""
    if row["part"] == "sound":
        return f"sound, {row['attack']}, {row['target_snr']:g} dB"
    if row["epsilon"] is None:
        return f"pixels, {row['attack']}"
    unit = "level" if row["epsilon"] == 1 else "levels"
    return f"pixels, {row['attack']}, {row['epsilon']:g} {unit}"


def build_attacked_page(
    result: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], command: Sequence[str] = ()
) -> str:
    """Returns the page.

    Args:
        result: The figures of `yt8m_gat.pipeline.attack_videos`.
        shown: What it shows: for each video its `video` (the id), `labels` (names), `top`
            (`[name, probability]` of the likeliest ones) and `sides`, each the identity of an
            attack with its `top` and, of pixels, `clean`, `attacked` and `difference` (PNG files
            in base64) and `amplification`.
        command: The command that writes the page.
    """
    provenance = result["provenance"]
    facts = [
        ["run", provenance["train_dir"]],
        ["model", provenance["model"]],
        ["extractor", provenance["extractor"]],
        ["videos", str(provenance["num_videos"])],
        *(["left out", f"{bad['video_id']}: {bad['reason']}"] for bad in result["left_out"]),
        ["weights", f"{provenance['checkpoint']}, SHA-256 {provenance['weights']}"],
    ]
    body = [
        *section(
            "What the attacks do",
            "In percent, with 95 % bootstrap intervals over the videos. Each attack was found by "
            "gradients through extractor and classifier, and measured on a file of the attacked "
            "pictures (bytes) and sound (16 bits), which the extractor read. Rewritten: a file of "
            "the same pictures and sound, which shows what writing alone changes. Features moved: "
            "the l2 distance from the clean ones, in the units of the epsilon of training.",
            [_attacks_table(result)],
        ),
        *section(
            "What an epsilon of features is in pixels and sound",
            "The smallest change that PGD found to move the features as far as epsilon: medians "
            "over the videos. Stored: how far they move once pixels are bytes and sound has 16 "
            "bits.",
            [_changes_table(result["smallest_changes"])] if result["smallest_changes"] else [],
        ),
        *section(
            "Frames",
            "The part of the picture that the extractor takes. The difference is shown around "
            "gray, amplified as its row says.",
            [part for video in shown for part in _video(video)],
        ),
        *section(
            "Where this comes from",
            "",
            [
                table(
                    ["", Cell("what", "name")],
                    [[name, Cell(value, "name")] for name, value in facts],
                ),
                page_note(command),
            ],
        ),
    ]
    return document("yt8m_gat: attacked videos", body, _STYLE)


def _attacks_table(result: Mapping[str, Any]) -> str:
    rows = []
    named = [("clean", result["clean"]), ("rewritten", result["rewritten"])]
    for words, row in [*named, *((attack_words(row), row) for row in result["attacks"])]:
        decibels = row.get("psnr") if row.get("part") == "pixels" else row.get("snr")
        figures = [plain(decibels), plain(row.get("feature_distance"))]
        rows.append([words, with_interval(row, "gap"), with_interval(row, "hit_at_1"), *figures])
    return table(["", "GAP", "Hit@1", "PSNR or SNR, dB", "features moved"], rows)


def _changes_table(changes: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for row in changes:
        median, num = row["median"], len(row["videos"])
        of_pixels = row["part"] == "pixels"
        ratio = median.get("psnr") if of_pixels else median.get("snr")
        rows.append(
            [
                f"{row['part']}, {row['norm']}, epsilon {row['feature_epsilon']:g}",
                plain(median["radius"]) if of_pixels else "-",
                plain(ratio),
                plain(median.get("stored_distance")),
                f"{num - row['num_unreached']} of {num}",
            ]
        )
    heads = ["", "radius, levels", "PSNR or SNR, dB", "stored, features moved", "videos reached"]
    return table(heads, rows)


def _video(video: Mapping[str, Any]) -> list[str]:
    parts = [
        f"<h3>{escape(video['video'])}</h3>",
        note(f"Labels: {', '.join(video['labels'])}. Clean: {_top_words(video['top'])}"),
    ]
    for number, side in enumerate(video["sides"]):
        films = [_film(side)] if "clean" in side else []
        title = f"{attack_words(side)}: {_top_words(side['top'])}"
        parts += folded(title, films or [note("The pictures are as they were.")], number == 0)
    return parts


def _top_words(top: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in top)


def _film(side: Mapping[str, Any]) -> str:
    rows = []
    for name in _SIDES:
        words = f"difference, {side['amplification']} times" if name == "difference" else name
        cells = "".join(f"<td>{_image(png, words)}</td>" for png in side[name])
        rows.append(f'<tr><th scope="row">{escape(words)}</th>{cells}</tr>')
    return f'<div class="film"><table>{"".join(rows)}</table></div>'


def _image(png: str, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{png}">'
