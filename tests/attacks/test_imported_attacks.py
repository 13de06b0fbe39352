"""Attacks by import path, and that those of docs/EXTENDING.md do what they say."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import PGD, AttackOptions, Ball, margin_loss
from yt8m_gat.config import ConfigError
from yt8m_gat.robustness.attack_spec import QUANTIZED, AttackSpec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "EXTENDING.md"
OTHERS = """
class NotAnAttack:
    def __init__(self, size=1): self.size = size
def broken(epsilon): raise RuntimeError("no luck")
"""
SHARED = AttackOptions(norm_scope="joint")


@pytest.fixture(scope="module", autouse=True)
def my_attacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    (code,) = re.findall(r"`my_attacks\.py`:\s+```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "my_attacks.py").write_text(code + OTHERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("my_attacks", None)


def test_it_gets_what_it_has_arguments_for():
    spec = AttackSpec.parse("my_attacks:EOT:samples=3:steps=5:round=true:epsilon_audio=0.1")
    attack = spec.build(0.5, SHARED)
    assert isinstance(attack, PGD) and (attack.samples, attack.steps) == (3, 5)
    assert attack.ball == Ball("l2", "joint", (("audio", 0.2),)) and attack.epsilon == 0.5
    assert attack.clip_to_range == QUANTIZED.clip_to_range
    assert spec.text == "my_attacks:EOT:samples=3:steps=5:round=true:epsilon_audio=0.1"
    assert spec.radii((0.5, 1.0)) == (0.5, 1.0) and not spec.takes_source
    assert spec.settings(SHARED) == {
        **{"epsilon_audio": 0.1, "norm_scope": "joint", "samples": 3, "steps": 5},
        **{"clip": True, "round": True},
    }
    spec = AttackSpec.parse("my_attacks:BPDA:epsilon=2:random_start=true")
    assert spec.needs_source and spec.radii((0.5,)) == (2.0,)
    assert spec.build(2.0, SHARED, source=abs).source is abs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_attacks:EOT:sample=3", r"my_attacks:EOT takes OPTION=VALUE, .* samples, .*'sample=3'"),
        ("my_attacks:EOT:samples=3:samples=4", r"each once"),
        ("my_attacks:EOT:steps=0", r"`steps` must be at least 1. Received: steps=0"),
        ("my_attacks:Nothing", r"has no Nothing; it defines .*BPDA"),
        ("my_attack:EOT", r"there is no module my_attack"),
        ("my_attacks:NotAnAttack:size=2", r"must give a yt8m_gat.attacks.Attack"),
        ("my_attacks:broken", r"RuntimeError: no luck"),
    ],
)
def test_what_cannot_be_used_is_named(text, message):
    with pytest.raises(ConfigError, match=f"--attacks.*{message}"):
        AttackSpec.parse(text).build(0.5, SHARED)


def test_bpda_follows_the_model_without_the_step(linear, batch):
    """A staircase has gradient 0: PGD stays, and PGD through the same model without it moves."""

    def staircase(features, frame_mask):
        steps = {name: tf.round(8.0 * value) / 8.0 for name, value in features.items()}
        return linear(steps, frame_mask) + 0.0 * linear(features, frame_mask)

    args = (staircase, margin_loss, *batch)
    plain = PGD(Ball("l2", "joint"), 0.5, steps=4).attack(*args)
    found = AttackSpec.parse("my_attacks:BPDA:steps=4").build(0.5, SHARED, linear).attack(*args)
    clean = margin_loss(batch.labels, staircase(batch.features, batch.frame_mask))
    np.testing.assert_allclose(plain.loss, clean, rtol=1e-6)
    assert np.all((found.loss - clean).numpy()[:4] > 0)
    np.testing.assert_allclose(found.logits, staircase(found.features, batch.frame_mask), 1e-5)


def test_eot_follows_the_mean_over_the_draws(linear, batch):
    """The gradient of each draw points somewhere else; the mean of many, along the model's."""
    noise = np.random.default_rng(0)
    kernel = linear.kernels["rgb"]

    def noisy(features, frame_mask):
        other = {"rgb": kernel + noise.normal(size=kernel.shape).astype(np.float32) * 3}
        logits = linear(features, frame_mask)
        mean = tf.reduce_mean(features["rgb"], axis=1)
        return logits + mean @ (other["rgb"] - kernel)

    def rise(samples):
        attack = AttackSpec.parse(f"my_attacks:EOT:steps=1:samples={samples}").build(0.5, SHARED)
        found = attack.attack(noisy, margin_loss, *batch).features
        return margin_loss(batch.labels, linear(found, batch.frame_mask)).numpy()[:4].mean()

    assert rise(40) > rise(1)
