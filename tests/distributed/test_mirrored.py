"""Three devices of one machine against one: terms, gradients and weights of the same batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def report():
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("mirrored_steps.py")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "case",
    [
        "cross-entropy",
        "clipping",
        "label weights",
        "skip",
        "frobenius",
        "temporal",
        "loss scale",
    ],
)
def test_three_devices_do_what_one_does(report, case):
    """Batches of 7, 6 and 2 clips: unequal parts, and a device without any."""
    assert report["devices"] == 3
    one, three = report["cases"][case]
    assert one["finite"] == three["finite"] == [True, case != "skip", True]
    assert one["examples"] == three["examples"] == [7, 6, 2]
    tolerance = {"rtol": 2e-5, "atol": 2e-6}
    for name in ("terms", "logits", "weights"):
        for ours, theirs in zip(one[name], three[name], strict=True):
            if case == "loss scale" and name == "logits":  # Float16.
                tolerance = {"atol": 2e-3}
            np.testing.assert_allclose(theirs, ours, err_msg=name, **tolerance)


def test_moving_averages_count_each_device_by_its_rows(report):
    """Of the input they owe nothing to the weights: its mean is that of one device."""
    one, three = (found["moving"] for found in report["cases"]["batch normalization"])
    [mean] = [path for path in one if path.endswith("input_normalization/moving_mean")]
    assert np.any(np.abs(one[mean]) > 0)
    np.testing.assert_allclose(three[mean], one[mean], rtol=1e-5, atol=1e-6)


def test_devices_draw_numbers_of_their_own_and_one_seed_moves_on(report):
    mirrored, alone = report["draws"]["states"]
    assert mirrored == alone and alone[0][1] == 2  # Drawn twice.
    rows = np.array(report["draws"]["logits"])  # The same clip on each device.
    assert len(np.unique(rows.round(6), axis=0)) > 1


def test_xla_across_devices_is_refused(report):
    assert "--jit_compile works on one device alone" in report["jit_compile"]
