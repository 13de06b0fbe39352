"""What several test files share."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory):
    """A tiny generated sample in the official layout: 96 + 32 + 32 clips of up to 12 frames."""
    from yt8m_gat.data.sample import SampleConfig, generate_sample

    folder = tmp_path_factory.mktemp("sample")
    generate_sample(
        folder,
        SampleConfig(
            num_train=96, num_validate=32, num_test=32, num_classes=8, max_frames=12, num_shards=2
        ),
    )
    return folder
