"""Three devices of one machine against one: terms, gradients and weights of the same batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ALIKE = (
    "cross-entropy",
    "clipping",
    "label weights",
    "skip",
    "frobenius",
    "micro batches",
    "temporal",
    "averaged weights",
    "loss scale",
)


def check_that_three_devices_do_what_one_does(case, one, three):
    """Batches of 7, 6 and 2 clips: unequal parts, and a device without any."""
    assert one["finite"] == three["finite"] == [True, case != "skip", True]
    assert one["examples"] == three["examples"] == [7, 6, 2]
    for name in ("terms", "logits", "weights"):
        half_precision = case == "loss scale" and name == "logits"
        tolerance = {"atol": 2e-3} if half_precision else {"rtol": 2e-5, "atol": 2e-6}
        for ours, theirs in zip(one[name], three[name], strict=True):
            np.testing.assert_allclose(theirs, ours, err_msg=f"{case}: {name}", **tolerance)


def check_that_moving_averages_count_each_device_by_its_rows(one, three):
    """Of the input they owe nothing to the weights: its mean is that of one device."""
    [mean] = [path for path in one if path.endswith("input_normalization/moving_mean")]
    assert np.any(np.abs(one[mean]) > 0)
    np.testing.assert_allclose(three[mean], one[mean], rtol=1e-5, atol=1e-6)


def check_that_devices_draw_numbers_of_their_own_and_one_seed_moves_on(states, logits):
    mirrored, alone = states
    assert mirrored == alone and alone[0][1] == 2  # Drawn twice.
    # The same clip on each device.
    assert len(np.unique(np.array(logits).round(6), axis=0)) > 1


@pytest.mark.slow
def test_raw_clips_on_two_devices_against_one(tmp_path):
    """A second mirrored run in the process does not meet the exchanges of the first."""
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("mirrored_clips.py"), tmp_path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    report = json.loads(finished.stdout.splitlines()[-1])
    assert {case["examples"] for case in report.values()} == {15}
    assert all(case["finite"] for case in report.values())
    one, two = (report[f"alike, {name}"]["weights"] for name in ("none", "mirrored"))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_three_devices_against_one():
    """One test, because every worker process of pytest would make the report anew."""
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("mirrored_steps.py")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["devices"] == 3
    cases = report["cases"]
    assert set(ALIKE) | {"batch normalization"} == set(cases)
    for case in ALIKE:
        check_that_three_devices_do_what_one_does(case, *cases[case])
    check_that_moving_averages_count_each_device_by_its_rows(
        *(found["moving"] for found in cases["batch normalization"])
    )
    check_that_devices_draw_numbers_of_their_own_and_one_seed_moves_on(**report["draws"])
    assert "--jit_compile works only on one device" in report["jit_compile"]
