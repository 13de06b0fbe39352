"""Whatever eval.py can write, finished or not, the report can read and draw."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from json_mutations import HOSTILE, mutated, places
from test_report import Page, write_run

from yt8m_gat.commands.report import main
from yt8m_gat.evaluation.comparison import compare_classes, difference_intervals
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.evaluation.record import EvaluationRecord
from yt8m_gat.explanation.activation_statistics import ActivationStatistics
from yt8m_gat.explanation.attention_statistics import AttentionProfiles, clip_attention
from yt8m_gat.explanation.true_spans import SpanFigures
from yt8m_gat.metrics import EvaluationMetrics, SegmentMeanAveragePrecision, restrict_to_classes
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import read_run
from yt8m_gat.report.table import format_evaluation
from yt8m_gat.robustness.sanity import sanity_checks
from yt8m_gat.robustness.worst_case import packed, worst_cases

NUM_CLASSES = 5
JPEG = "data:image/jpeg;base64,/9j/"
GROUPS = {"Finance": [0, 3], "a & b": [1], "<i>c": [2, 4]}
SPECS = ("fgm", "pgd:steps=100", "pgd_linf", "noise", "square", "deepfool", "<i>new:a=1")
FIGURES = (
    *("loss", "norm", "relative_norm", "success", "zero_gradient_share", "rho_mean"),
    *("rho_median", "share_not_flipped", "attention_entropy_rgb", "distance_to_uniform_rgb"),
    *("attention_mse_rgb", "attention_frobenius_rgb"),
)
FIGURE = st.sampled_from([0.0, 0.3, 1.0, 1e-12, -2.5, 1e30, math.nan, math.inf, None])


def measured(draw, count, groups, rated):
    """What one pass may find: clips without labels, groups without clips, figures without value."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.random((count, NUM_CLASSES)) < draw(st.sampled_from([0.0, 0.3]))
    scores = rng.random((count, NUM_CLASSES)).astype(np.float32)
    weights = np.ones_like(labels) if rated else None
    all_scores = draw(st.booleans())
    metrics = EvaluationMetrics(NUM_CLASSES, all_scores=all_scores and not rated)
    metrics.update(labels, scores, weights)
    segment_map = None
    if rated and all_scores:
        segment_map = SegmentMeanAveragePrecision(NUM_CLASSES)
        segment_map.update(labels, weights, scores)
    of_groups = {name: EvaluationMetrics(len(GROUPS[name]), 20, False) for name in groups}
    for name in groups:
        of_group = restrict_to_classes(labels, scores, GROUPS[name])
        if len(of_group[0]):
            of_groups[name].update(*of_group)
    figures = {name: draw(FIGURE) for name in draw(st.sets(st.sampled_from(FIGURES)))}
    return Measurement(metrics, segment_map, figures, count, rated, labels.sum(axis=0), of_groups)


def add(draw, record, kind, identity, found, **sections):
    parts = 2 if found.num_examples > 1 and draw(st.booleans()) else 0
    row = {**found.result(parts), "hits": packed(found.metrics.hits_at_1)}
    row["intervals"] = found.metrics.intervals()
    record.add(kind, identity, row, found.group_results(), **sections)


def steps(draw, path):
    """Writes an evaluation as eval.py does, and yields after each time that it is on disk."""
    groups = draw(st.lists(st.sampled_from(list(GROUPS)), unique=True))
    count, rated, num_frames = draw(st.integers(1, 6)), draw(st.booleans()), draw(st.integers(1, 9))
    record = EvaluationRecord(
        {"checkpoint": "best"}, path, {name: GROUPS[name] for name in groups}, start_over=True
    )
    weights = np.random.default_rng(num_frames).random((1, 2, num_frames, num_frames))
    maps = {"rgb": {"global": weights / weights.sum(-1, keepdims=True)}}
    mask = np.ones((1, num_frames), bool)
    profiles = AttentionProfiles(lambda level, found: found)
    if draw(st.booleans()):
        profiles.update(maps, mask)

    clean = measured(draw, count, groups, rated)
    ap = clean.per_class_average_precision()
    classes = {"ap": ap.tolist(), "positives": clean.positives.tolist()}
    attention = {"profiles": profiles.result()}
    add(draw, record, "clean", {}, clean, classes=classes, attention=attention)
    yield
    for spec in draw(st.lists(st.sampled_from(SPECS), max_size=4)):
        epsilon = None if spec == "deepfool" else draw(st.sampled_from([0.0, 0.5, 8.0]))
        options = {"norm_scope": "frame", "round": draw(st.booleans()), "steps": 20}
        identity = {"attack": spec, "epsilon": epsilon, "options": options}
        add(draw, record, "attacks", identity, measured(draw, count, groups, rated))
        yield
    for severity in draw(st.lists(st.integers(1, 5), max_size=2, unique=True)):
        identity = {"corruption": "frame_drop", "severity": severity}
        add(draw, record, "corruptions", identity, measured(draw, count, groups, rated))
        yield
    result = record.result
    sensitivity = {"rgb": {"S": draw(FIGURE), "deviation": draw(FIGURE), "num_videos": 0}}
    record.set(attention={**result["attention"], "sensitivity": sensitivity})
    record.set(class_activation=ActivationStatistics().result())
    spans = SpanFigures().result()
    record.set(true_spans={"spans": "0", "activation": spans, "attention": {"<rgb>": spans}})
    top = [[0, "<b>", 0.4], [3, None, math.nan]]
    looks = clip_attention(maps, mask, 0, lambda level, found: found)
    values = [[0.5, -0.1], [-1.0, math.nan]]
    looks["frames"] = [JPEG, JPEG]
    looks["activation"] = [
        {"class": 0, "name": "<b>", "values": of, "entropy": draw(FIGURE), "spread": draw(FIGURE)}
        for of in values
    ]
    seen = {"top": top, **draw(st.sampled_from([looks, {"profiles": {}, "maps": {}}]))}
    clip = {"video_id": "<i>x", "labels": [[0, "<b>"]], "clean": seen}
    record.set(clips=[clip, {**clip, "attacked": {**seen, "attack": "fgm", "epsilon": 0.5}}])
    yield
    compared = compare_classes(ap, ap[::-1], {0: "<b>"}, clean.positives, draw(st.integers(1, 3)))
    compared["intervals"] = difference_intervals(compared, clean, clean)
    record.set(comparison={"baseline": "runs/<sa>", "attack": None, **compared})
    record.set(worst_cases=worst_cases(result["clean"], result["attacks"]))
    verdicts = sanity_checks(result["clean"], result["attacks"], max_frames=9, num_features=1)
    record.set(sanity=verdicts)
    yield
    record.finish()
    yield


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.generate],  # Writing files again and again to shrink an example takes minutes.
    derandomize=True,
)
@given(data=st.data())
def test_what_eval_writes_the_report_draws(tmp_path_factory, data):
    folder = write_run(tmp_path_factory.mktemp("runs") / "gat")
    stop = data.draw(st.integers(1, 12))
    for count, _ in enumerate(steps(data.draw, folder / "evaluation.json"), start=1):
        if count == stop:
            break
    run = read_run(folder)
    assert run.unreadable == ()
    written = json.loads((folder / "evaluation.json").read_text())
    assert run.evaluation == written and run.clean == written["clean"]
    text, _ = build_page([run])
    assert Page(text).open == [] and "<i>" not in text and "<b>" not in text
    assert "Not finished" in text or written["complete"]
    assert format_evaluation(written)


def test_a_bad_file_takes_no_good_run_off_the_page(tmp_path, capsys):
    good, bad, other = (write_run(tmp_path / name) for name in ("good", "bad", "other"))
    (bad / "evaluation.json").write_text('{"clean": {}, "attacks": [{}]}')
    (other / "config.json").write_text("{")
    page = tmp_path / "report.html"
    assert main([*map(str, (bad, good, other)), "-o", str(page)]) == 2
    error, text = capsys.readouterr().err, page.read_text()
    assert "yt8m-gat report: error: bad: " in error
    for file in (bad / "evaluation.json", other / "config.json"):
        assert str(file) in error and f"Not on this page: {'bad: ' * (file.parent == bad)}" in text
        assert str(file) in text
    assert "37.03" in text
    # Of the bad one what can be read is there.
    curves = text[text.index("<h2>Training</h2>") :]
    assert ">bad</text>" in curves and ">other</text>" not in curves


@pytest.mark.parametrize(
    "content",
    [
        '{"clean": {}, "x": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"clean": {"gap": 1' + "0" * 5000 + "}}",
    ],
)
def test_json_that_python_refuses_is_a_line(tmp_path, content):
    folder = write_run(tmp_path / "sa")
    (folder / "evaluation.json").write_text(content)
    (message,) = read_run(folder).unreadable
    assert "must be JSON" in message and "\n" not in message


def test_no_mutation_of_an_evaluation_stops_the_page(tmp_path):
    """Another value in any place is drawn, or said to be unreadable."""
    folder, text = write_run(tmp_path / "sa"), ""

    @settings(max_examples=12, deadline=None, phases=[Phase.generate], derandomize=True)
    @given(data=st.data())
    def write(data):
        nonlocal text
        for _ in steps(data.draw, tmp_path / "whole.json"):
            pass
        text = max(text, (tmp_path / "whole.json").read_text(), key=len)

    write()
    values, rng = json.loads(text), random.Random(0)
    paths = list(places(values))
    unreadable = 0
    known = [
        (("clips", 0, "clean", "maps", "rgb", "global", 0, 0), "1e308"),
        (("provenance", "earlier_calls"), "-Infinity"),
        (("clean", "gap"), "1e308"),
    ]
    for path, hostile in known + [(rng.choice(paths), rng.choice(HOSTILE)) for _ in range(80)]:
        (folder / "evaluation.json").write_text(mutated(values, path, hostile))
        run = read_run(folder)
        unreadable += bool(run.unreadable)
        text, _ = build_page([run])
        assert Page(text).open == []
    assert 10 < unreadable < 80
