"""Every public layer, loss, attack and metric has an example in its docstring, which runs."""

import doctest
import importlib
import inspect
import pkgutil
import sys

import pytest

import yt8m_gat

ROOMS = ("attacks", "layers", "losses", "metrics")
# What stands beside them: abstract bases, and what their classes are chosen by.
WITHOUT = {
    *("ClassificationLoss", "get_loss"),
    *("Attack", "AttackOptions", "AttackResult", "PassCount", "Problem", "RecordedPass"),
    *("loss_and_gradients", "mask_frames"),
}


def modules(room):
    package = importlib.import_module(f"yt8m_gat.{room}")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"yt8m_gat.{room}.{name}") for name in names]


@pytest.mark.parametrize("room", ROOMS)
def test_examples_run(room):
    runner = doctest.DocTestRunner()
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules(room):
        for test in finder.find(module):
            # To the console of pytest, which shows it when the test fails.
            runner.run(test, out=sys.stdout.write)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("room", ROOMS)
def test_everything_public_has_an_example(room):
    package = getattr(yt8m_gat, room)
    public = [getattr(package, name) for name in package.__all__ if name not in WITHOUT]
    missing = [
        item.__name__
        for item in public
        if (inspect.isclass(item) or inspect.isfunction(item)) and ">>>" not in item.__doc__
    ]
    assert not missing
