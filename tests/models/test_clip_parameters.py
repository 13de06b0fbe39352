"""Numbers of parameters of the models of raw clips, to the digit."""

import numpy as np
import pytest

from yt8m_gat.models import build_model

# As published (ResNet-50, 174 classes); of TPN's, 19,234,990 are the auxiliary head's.
PUBLISHED = {
    "TSN": 23_864_558,
    "TSM": 23_864_558,
    "TAM": 23_903_918,
    "GST": 21_035_246,
    "GSTLarge": 29_523_182,
    "TPN": 82_445_724,
}


def number_of_parameters(name, **options):
    model = build_model(name, {"image": 3}, 174, crop_size=32, **options)
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["ResNet50", "ResNet50Torchvision"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_with_a_resnet_50(name, backbone):
    assert number_of_parameters(name, backbone=backbone) == PUBLISHED[name]
    if name == "TPN":
        without = number_of_parameters(name, backbone=backbone, auxiliary_head=False)
        assert PUBLISHED[name] - without == 19_234_990


def test_with_the_small_network():
    """What the modules add: TAM 3 weights a channel of each block's input; GST a quarter less.

    Kernels of the 3 x 3 convolutions of the blocks: 9 * (2 * 32^2 + (32 + 64) * 64 +
    (64 + 128) * 128 + (128 + 256) * 256) = 1,179,648.
    """
    counts = {
        name: number_of_parameters(name, backbone="ResNet10Small")
        for name in ("TSM", "TAM", "GST", "GSTLarge")
    }
    assert counts["TAM"] - counts["TSM"] == 3 * (32 + 32 + 64 + 128)
    assert counts["TSM"] - counts["GST"] == 1_179_648 // 4
    # All channels instead of half of them: twice GST's kernels.
    assert counts["GSTLarge"] - counts["GST"] == 1_179_648 * 3 // 4
