import doctest
import importlib
import sys

import pytest

import yt8m_gat.extraction


@pytest.mark.parametrize("name", ["config", "extractor", "log_mel", "pca"])
def test_examples_run(name):
    module = importlib.import_module(f"yt8m_gat.extraction.{name}")
    runner = doctest.DocTestRunner()
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    for test in tests:
        runner.run(test, out=sys.stdout.write)
    assert runner.summarize(verbose=False).failed == 0
    assert sum(len(test.examples) for test in tests) > 1


def test_the_names_of_the_room():
    for name in yt8m_gat.extraction.__all__:
        assert getattr(yt8m_gat.extraction, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = yt8m_gat.extraction.nothing
