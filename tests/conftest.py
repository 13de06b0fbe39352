"""What several test files share."""

import gc
import os
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

# Started in the background of a shell, this process ignores SIGINT, and so would all that the tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_go_with_the_tests(tmp_path_factory):
    """A worker of pytest-xdist ends without cleaning up TensorFlow's generated code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _kept_graphs_are_not_searched_again():
    """TensorFlow keeps every graph with a custom gradient: millions of objects, always alive."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _iterators_end_with_their_test():
    """An iterator that an exception keeps in a cycle is collected while it is young.

    Its destructor waits until its tuning thread wakes, which is once a minute when it is old.
    """
    yield
    gc.collect(1)


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory):
    """A tiny generated sample in the official layout: 96 + 32 + 32 clips of up to 12 frames."""
    from yt8m_gat.acquisition.sample import SampleConfig, generate_sample

    folder = tmp_path_factory.mktemp("sample")
    generate_sample(
        folder,
        SampleConfig(
            num_train=96, num_validate=32, num_test=32, num_classes=8, max_frames=12, num_shards=2
        ),
    )
    return folder
