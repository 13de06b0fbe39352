"""One self-contained HTML page about one video: frames, labels, and the seconds behind them."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yt8m_gat.report.drawing.markup import Cell, document, note, section, shown, table, warning
from yt8m_gat.report.drawing.time_track import (
    Edges,
    clock,
    heat_track,
    percent_of,
    step_track,
    time_ticks,
)
from yt8m_gat.report.results import class_name
from yt8m_gat.report.settings import page_note

SIDES = ("clean", "attacked")

_STYLE = """
td.name { overflow-wrap: anywhere; }
.watch { margin: 1rem 0; }
.watch input { position: absolute; opacity: 0; pointer-events: none; }
.scroller { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; }
.tracks { position: relative; min-width: 46rem; padding: .5rem; }
.lane { display: grid; grid-template-columns: 11rem minmax(0, 1fr); gap: 0 .6rem;
  align-items: center; padding: .2rem 0; }
.lane + .lane { border-top: 1px solid var(--rule); }
.lane.quiet, .lane.bare { border-top: 0; }
.who { font-size: .82rem; line-height: 1.3; position: sticky; left: 0; padding: .1rem .5rem;
  background: var(--paper); z-index: 2; overflow-wrap: anywhere; }
.who b { display: block; } .who small { color: var(--soft); display: block; }
label.who { cursor: pointer; border-radius: 4px; border: 1px solid var(--rule);
  background: var(--shade); }
.over { position: relative; }
.film { display: flex; background: var(--shade); min-height: 1rem; } .film i { flex: 1 1 0; }
.film img { flex: 1 1 0; min-width: 0; width: 0; aspect-ratio: var(--shape); object-fit: cover;
  display: block; border-right: 1px solid var(--paper); }
.axis { height: 1.3rem; font-size: .75rem; color: var(--soft); }
.axis span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis span.first { transform: none; } .axis span.last { transform: translateX(-100%); }
svg.steps { display: block; width: 100%; height: 1.8rem; margin: .2rem 0; }
svg.heats { display: block; width: 100%; height: .7rem; margin: .12rem 0; }
svg .zero { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; }
.span { position: absolute; top: 0; bottom: 0; min-width: 2px; border: 2px solid var(--series-4);
  border-width: 0 2px; pointer-events: none;
  background: color-mix(in srgb, var(--series-4) 22%, transparent); }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  vertical-align: -.05em; margin: 0 .3em 0 .8em; }
.moments { display: flex; flex-wrap: wrap; gap: .6rem; margin: .4rem 0 1rem; }
.moments figure { width: 13rem; } .moments img { display: block; width: 100%; height: auto; }
.moments figcaption { font-size: .82rem; color: var(--soft); }
@media (max-width: 40rem) {
  .lane { grid-template-columns: minmax(0, 1fr); }
  .who { width: max-content; max-width: calc(100vw - 4rem); left: .2rem; }
  .who b, .who small { display: inline; } .moments figure { width: calc(50% - .3rem); }
}
"""
# Without `:has` a browser shows the seconds of all labels, one below the other.
_CHOSEN = "@supports selector(:has(*)) {{ .of {{ display: none; }} {rules} }}"
# Scrolls to what a click on a label shows; the page works without it.
_SCRIPT = """<script>
for (const choice of document.querySelectorAll(".watch input")) {
  choice.addEventListener("change", () => {
    const span = document.querySelector(".film ~ .span.of-" + choice.value);
    const scroller = document.querySelector(".scroller");
    if (span) scroller.scrollTo({
      left: span.offsetLeft + span.offsetWidth / 2 - scroller.clientWidth / 2 +
        span.parentElement.offsetLeft, behavior: "smooth" });
  });
}
</script>"""


def build_watch_page(watched: Mapping[str, Any], command: Sequence[str] = ()) -> str:
    """Returns the page about one video.

    Args:
        watched: The result of `yt8m_gat.pipeline.watch`.
        command: The command that writes the page.
    """
    edges: Edges = watched["edges"]
    labels = watched["labels"]
    provenance = watched["provenance"]
    step = [] if provenance["step"] is None else [f"step {provenance['step']}"]
    digest = f"SHA-256 {provenance['weights']}"
    options = [f"{key}={shown(value)}" for key, value in watched["options"].items()]
    seen = f"{len(edges) - 1} frames, from {clock(edges[0])} to {clock(edges[-1])}"
    attacked = "features" if watched["attacked_frames"] is None else "pixels"
    facts = [
        ["video", watched["video"]],
        ["classified", seen],
        [attacked, watched["extractor"]],
        ["run", provenance["train_dir"]],
        ["model", ", ".join([watched["model"], *options])],
        ["weights", ", ".join([provenance["checkpoint"], *step, digest])],
    ]
    attack = f"FGM, epsilon {watched['epsilon']:g}"
    body = [
        *(warning(message) for message in watched["warnings"]),
        *section(
            "What the model says",
            f"Probabilities in percent, on the video and under attack: {attack} on the {attacked}, "
            "the strength of training, against the labels that the model itself gives. The seconds "
            "are those whose class activation is at least half of the highest.",
            [_top_table(labels, attack)],
        ),
        *section("Second by second", "", [_tracks(watched, attack)]),
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
        _SCRIPT,
    ]
    rules = "".join(
        f".watch:has(#label-{place}:checked) .of-{place} {{ display: revert; }}"
        f".watch:has(#label-{place}:checked) label[for=label-{place}] "
        "{ border-color: var(--series-4); box-shadow: inset 4px 0 var(--series-4); }"
        f".watch:has(#label-{place}:focus-visible) label[for=label-{place}] "
        "{ outline: 2px solid var(--series-0); }"
        for place in range(len(labels))
    )
    width, height = watched["shape"]
    shape = f":root {{ --shape: {max(width, 1)} / {max(height, 1)}; }}"
    return document(
        f"yt8m_gat: {watched['video']}", body, _STYLE + shape + _CHOSEN.format(rules=rules)
    )


def _top_table(labels: Sequence[Mapping[str, Any]], attack: str) -> str:
    rows = [
        [
            class_name(entry["label"], entry["name"]),
            *(_percent(entry[side]["probability"]) for side in SIDES),
            *(Cell(_spans_words(entry[side]["spans"]), "name") for side in SIDES),
        ]
        for entry in labels
    ]
    heads: list[str | Cell] = ["label", "clean", attack]
    return table([*heads, Cell("seconds, clean", "name"), Cell("seconds, attacked", "name")], rows)


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}"


def _spans_words(spans: Sequence[Sequence[float]], most: int = 6) -> str:
    """Returns `3 s to 5 s, 1:10 to 1:12.5`; a dash if there is no span."""
    words = [f"{clock(start)} to {clock(end)}" for start, end in spans[:most]]
    if len(spans) > most:
        words.append(f"{len(spans) - most} more")
    return ", ".join(words) or "-"


def _tracks(watched: Mapping[str, Any], attack: str) -> str:
    edges, labels = watched["edges"], watched["labels"]
    explained = "The attack changes the features, not the pictures. "
    if watched["attacked_frames"] is not None:
        explained = "Frames as the model takes them, clean above attacked. "
    if watched["attention"]:
        explained += (
            "Attention, clean above attacked: the stronger the colour, the more a frame receives."
        )
    choices, lanes = [], []
    for place, entry in enumerate(labels):
        checked = " checked" if place == 0 else ""
        choices.append(
            f'<input type="radio" name="label" id="label-{place}" value="{place}"{checked}>'
        )
        figures = ", ".join(f"{_percent(entry[side]['probability'])} %" for side in SIDES)
        activations = [entry[side]["activation"] or [] for side in SIDES]
        heights = [0.0, *(value for values in activations for value in values)]
        scale = min(heights), max(heights)
        drawn = "".join(
            step_track(values, edges, scale, color)
            for color, values in enumerate(activations)
            if values
        )
        name = escape(class_name(entry["label"], entry["name"]))
        lanes.append(
            f'<div class="lane"><label class="who" for="label-{place}"><b>{name}</b> '
            f"<small>{figures}</small></label>"
            f'<div class="over">{drawn}{_bands(entry["clean"]["spans"], edges, place)}</div></div>'
        )
    return "\n".join(
        [
            note(
                "A click on a label marks the seconds that carried it. Its class activation, clean "
                "and attacked on one scale: up is evidence for the label, down against it. "
                + explained
            ),
            '<p class="note key"><i style="background: var(--series-0); margin-left: 0"></i>clean'
            f'<i style="background: var(--series-1)"></i>{escape(attack)}'
            '<i style="background: var(--series-4)"></i>seconds of the chosen label</p>',
            '<div class="watch">',
            *choices,
            '<div class="scroller"><div class="tracks">',
            _film(watched),
            *lanes,
            *_attention_lanes(watched["attention"], edges),
            "</div></div>",
            *_moments(watched),
            "</div>",
        ]
    )


def _film(watched: Mapping[str, Any]) -> str:
    edges = watched["edges"]
    films = [("frames", watched["frames"])]
    if watched["attacked_frames"] is not None:
        films.append(("attacked", watched["attacked_frames"]))
    bands = "".join(
        _bands(entry["clean"]["spans"], edges, place)
        for place, entry in enumerate(watched["labels"])
    )
    marks = []
    for at, text in time_ticks(edges):
        kind = ' class="first"' if at < 3 else ' class="last"' if at > 97 else ""
        marks.append(f'<span{kind} style="left: {at:.2f}%">{escape(text)}</span>')
    lanes = "".join(
        f'<div class="lane bare"><div class="who"><b>{name}</b></div>'
        f'<div class="over"><div class="film">{_images(frames)}</div>{bands}</div></div>'
        for name, frames in films
    )
    return (
        f'{lanes}<div class="lane bare"><div class="who"></div>'
        f'<div class="over axis">{"".join(marks)}</div></div>'
    )


def _images(frames: Sequence[Mapping[str, Any] | None]) -> str:
    # A picture that is missing keeps its place, so that the others stay above their seconds.
    return "".join("<i></i>" if frame is None else _image(frame) for frame in frames)


def _bands(spans: Sequence[Sequence[float]], edges: Edges, place: int) -> str:
    drawn = []
    for start, end in spans:
        left, right = percent_of(start, edges), percent_of(end, edges)
        drawn.append(
            f'<span class="span of of-{place}" style="left: {left:.2f}%; '
            f'width: {right - left:.2f}%"></span>'
        )
    return "".join(drawn)


def _attention_lanes(attention: Mapping[str, Any], edges: Edges) -> list[str]:
    """Returns a lane per feature and level: the attention that each frame receives."""
    lanes = []
    for feature, levels in attention.items():
        for level, sides in levels.items():
            largest = max(max(values, default=0.0) for values in sides.values())
            drawn = "".join(
                heat_track(sides[side], edges, largest) for side in SIDES if side in sides
            )
            lanes.append(
                f'<div class="lane"><div class="who"><b>attention</b> '
                f"<small>{escape(feature)}, {escape(level)}</small></div>"
                f'<div class="over">{drawn}</div></div>'
            )
    return lanes


def _moments(watched: Mapping[str, Any]) -> list[str]:
    """Returns, for each label, its seconds in words and the strongest frame of some of them."""
    parts = []
    for place, entry in enumerate(watched["labels"]):
        name = class_name(entry["label"], entry["name"])
        words = _spans_words(entry["clean"]["spans"], most=20)
        sentence = f"{name}: {words}" if words != "-" else f"{name}: no second speaks for it"
        figures = "".join(
            f"<figure>{_image(frame)}<figcaption>{escape(clock(frame['second']))}</figcaption>"
            "</figure>"
            for frame in entry["moments"]
        )
        parts.append(
            f'<div class="of of-{place}"><p>{escape(sentence)}.</p>'
            f'<div class="moments">{figures}</div></div>'
        )
    return parts


def _image(frame: Mapping[str, Any]) -> str:
    """Returns an `<img>` that holds a JPEG."""
    encoded = base64.b64encode(frame["jpeg"]).decode("ascii")
    alt = escape(f"the video at {clock(frame['second'])}")
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{encoded}">'
