"""`make mutate`: plants faults in the package, one at a time, and counts those that the tests see.

python tests/mutation/mutate.py [--count=240] [--seed=0] [--only=training/state.py] [--workers=2]

First every test file runs once, in a process of its own, and the functions of the package that it
enters are noted. Then each mutant meets the test files that enter its function, until one fails:
first the one named after its module, then those of its own room, the quickest first, and no more
than take --most_seconds without the mutant. A mutant that makes them run several times as long
counts as seen too. All this happens in copies of the tree below --work_dir; the tree itself is not
touched.

TensorFlow is imported once, and each process is a fork of that one. The results are stored one by
one: the same command, on the same tree, goes on where it was stopped, and with a larger
--most_seconds it tries the survivors again.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from mutants import Mutant, drawn

ROOT = Path(__file__).resolve().parents[2]

ROOMS = (
    *("layers", "losses", "attacks", "metrics", "training", "data"),
    *("evaluation", "robustness", "explanation", "prediction"),
)
# Where tests of these rooms are. Those of whole jobs take long and hold few of their values.
_TESTED_IN = (*ROOMS, "acquisition", "models", "weights", "reliability", "export")
_ALSO_TESTED_IN = ("tests/test_python_path.py", "tests/test_import_path.py")
_COPIED = ("yt8m_gat", "tests", "train.py", "eval.py", "inference.py", "pyproject.toml")
_LONGEST_FILE = 1500
"""Seconds of one test file."""


def _copy(target: Path) -> None:
    """A tree of its own for a worker; the last one's is dropped."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in (*_COPIED, *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs"))):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target / name)


def _in_fork(tree: Path, job: Callable[[], int], seconds: float) -> tuple[int | None, float]:
    """Exit code of `job` in a fork that works in `tree`, None after `seconds`; and its time."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            os.chdir(tree)
            sys.path[:] = [
                str(tree),
                *(p for p in sys.path if not Path(p or ".").is_relative_to(ROOT / "tests")),
            ]
            os.environ["PYTHONPATH"] = str(tree)
            sink = os.open(tree / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            status = job()
        except (Exception, SystemExit):  # noqa: BLE001 - a fork must not go on as its parent.
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    code: int | None = None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() - begun > seconds:
            break
        time.sleep(0.02)
    # Also what the tests have started.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
    return code, time.monotonic() - begun


def _run_tests(files: Sequence[str], scratch: Path) -> int:
    import pytest

    return int(
        pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(scratch), *files])
    )


def _traced_tests(file: str, tree: Path, target: Path) -> int:
    """Runs a test file; writes which functions of the package it enters."""
    package = str(tree / "yt8m_gat") + os.sep
    entered: dict[int, CodeType] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if id(code) not in entered:
            entered[id(code)] = code  # Kept, so that no other gets its id.

    threading.settrace(note)
    sys.settrace(note)
    code = _run_tests([file], tree / "scratch")
    sys.settrace(None)
    found: dict[str, list[int]] = collections.defaultdict(list)
    for inside in entered.values():
        if inside.co_filename.startswith(package):
            path = inside.co_filename[len(str(tree)) + 1 :]
            found[path].append(0 if inside.co_name == "<module>" else inside.co_firstlineno)
    target.write_text(json.dumps(found))
    return code


def _workers(number: int, jobs: list, work: Callable[[int, object], None]) -> None:
    """Has each job done by one of some threads, each with a number."""
    lock = threading.Lock()

    def loop(worker: int) -> None:
        while True:
            with lock:
                if not jobs:
                    return
                job = jobs.pop(0)
            work(worker, job)

    threads = [threading.Thread(target=loop, args=(worker,)) for worker in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _tree_digest() -> str:
    """Tells one state of the tree from another; that of this folder does not matter."""
    state = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in ("yt8m_gat", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent != Path(__file__).resolve().parent
    }
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _survey(work_dir: Path, workers: int, digest: str) -> dict[str, dict]:
    """Test file -> seconds, and path -> first lines of the functions that it enters."""
    stored = work_dir / "survey.json"
    surveyed: dict[str, dict] = {}
    if stored.is_file() and (earlier := json.loads(stored.read_text()))["digest"] == digest:
        surveyed = earlier["files"]
    files = [
        str(path.relative_to(ROOT))
        for room in _TESTED_IN
        for path in sorted((ROOT / "tests" / room).glob("test_*.py"))
    ]
    files = [file for file in (*files, *_ALSO_TESTED_IN) if file not in surveyed]

    def look(worker: int, file: str) -> None:
        tree = work_dir / f"tree{worker}"
        target = tree / "entered.json"
        target.unlink(missing_ok=True)
        code, seconds = _in_fork(tree, lambda: _traced_tests(file, tree, target), _LONGEST_FILE)
        if code not in (0, 5):
            shutil.copy(tree / "output.txt", work_dir / "failed.txt")
            print(f"{file}: fails without any mutant ({code}); left out", flush=True)
            return
        surveyed[file] = {"seconds": seconds, "entered": json.loads(target.read_text())}
        stored.write_text(json.dumps({"digest": digest, "files": surveyed}))
        print(f"surveyed {file}: {seconds:.1f} s", flush=True)

    _workers(workers, files, look)
    return surveyed


def _first_line_around(mutant: Mutant, source: str) -> int:
    """Where the function begins that a mutant is in; 0: it is in none, and importing runs it."""
    first = 0
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body[0].lineno <= mutant.line <= node.end_lineno
        ):
            # A decorated function's code begins at its first decorator.
            first = max(first, min([node.lineno, *(d.lineno for d in node.decorator_list)]))
    return first


def _tests_of(
    path: str, line: int, surveyed: dict[str, dict], most_seconds: float
) -> list[tuple[float, str]]:
    """The test files that a mutant meets, with their seconds, in their order.

    Args:
        path: The mutated module.
        line: The first line of the function that is mutated.
        surveyed: See `_survey`.
        most_seconds: What they may take without the mutant; the first is there in any case.
    """
    room, name = Path(path).parts[1], Path(path).stem
    covering = sorted(
        (
            not Path(file).stem.startswith(f"test_{name}"),
            Path(file).parts[1] != room,
            about["seconds"],
            file,
        )
        for file, about in surveyed.items()
        if line in about["entered"].get(path, ())
    )
    tests: list[tuple[float, str]] = []
    for *_, seconds, file in covering:
        if tests and sum(spent for spent, _ in tests) + seconds > most_seconds:
            break
        tests.append((seconds, file))
    return tests


def main() -> None:
    """Plants the mutants and writes what became of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=240, help="Mutants (default: %(default)s).")
    parser.add_argument("--seed", type=int, default=0, help="Fixes which (default: %(default)s).")
    parser.add_argument("--only", default="", help="Of files whose path holds this text alone.")
    parser.add_argument("--workers", type=int, default=2, help="Side by side.")
    parser.add_argument(
        "--most_seconds",
        type=float,
        default=120.0,
        help="Seconds of tests for a mutant that survives (default: %(default)s).",
    )
    parser.add_argument("--work_dir", default=str(ROOT / "build" / "mutation"))
    arguments = parser.parse_args()
    work_dir = Path(arguments.work_dir).resolve()
    for worker in range(arguments.workers):
        _copy(work_dir / f"tree{worker}")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for room in ROOMS
        for path in sorted((ROOT / "yt8m_gat" / room).rglob("*.py"))
        if arguments.only in str(path)
    }
    digest = _tree_digest()
    surveyed = _survey(work_dir, arguments.workers, digest)
    chosen = drawn(sources, arguments.count, arguments.seed)
    stored = work_dir / "results.json"
    results: dict[str, dict] = {}
    if stored.is_file() and (earlier := json.loads(stored.read_text()))["digest"] == digest:
        results = earlier["results"]
    named = {f"{path}:{mutant.describe(sources[path])}": (path, mutant) for path, mutant in chosen}

    def is_done(name: str) -> bool:
        result = results.get(name, {"outcome": ""})
        return result["outcome"] in _SEEN or (
            result["outcome"] == "survived"
            and result.get("most_seconds", 0) >= arguments.most_seconds
        )

    jobs = [(name, *job) for name, job in named.items() if not is_done(name)]
    num_jobs, begun = len(jobs), time.monotonic()

    def judge(worker: int, job: tuple[str, str, Mutant]) -> None:
        name, path, mutant = job
        tree = work_dir / f"tree{worker}"
        line = _first_line_around(mutant, sources[path])
        tests = _tests_of(path, line, surveyed, arguments.most_seconds)
        outcome, by = ("survived" if tests else "no test runs this line"), ""
        (tree / path).write_text(mutant.applied(sources[path]), encoding="utf-8")
        try:
            for seconds, file in tests:
                code, _ = _in_fork(
                    tree, lambda file=file: _run_tests([file], tree / "scratch"), 30 + 5 * seconds
                )
                if code != 0:
                    outcome, by = ("killed" if code is not None else "too slow"), file
                    break
        finally:
            (tree / path).write_text(sources[path], encoding="utf-8")
        results[name] = {"outcome": outcome, "by": by, "most_seconds": arguments.most_seconds}
        stored.write_text(json.dumps({"digest": digest, "results": results}, indent=2) + "\n")
        num_left = len(jobs)
        left = (time.monotonic() - begun) / max(1, num_jobs - num_left) * num_left
        print(
            f"[{len(results)}/{len(named)}, {_num_seen(results)} killed, {left / 60:.0f} min left] "
            f"{outcome}: {name}",
            flush=True,
        )

    _workers(arguments.workers, jobs, judge)
    results = {name: results[name] for name in named}
    share = 100 * _num_seen(results) / max(1, len(results))
    print(f"\n{_num_seen(results)} of {len(results)} mutants killed ({share:.1f} %)")
    print(f"seed {arguments.seed}; {stored} has each. Survivors:")
    for name, result in sorted(results.items()):
        if result["outcome"] not in _SEEN:
            print(f"  {name}")


_SEEN = ("killed", "too slow")


def _num_seen(results: dict[str, dict]) -> int:
    return sum(result["outcome"] in _SEEN for result in results.values())


if __name__ == "__main__":
    main()
