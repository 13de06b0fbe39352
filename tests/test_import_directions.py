"""Data flows one way: who may import whom (BUILD.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "yt8m_gat"

# Room -> rooms that it may import. Rooms may always import themselves; `config`, `disk`, `locks`,
# `cli`, `interrupt`, `paths`, `recipes`, `run_folder`, `starter_flags` need no TensorFlow;
# `reduction` needs Keras only.
ALLOWED = {
    "config": {"disk", "recipes"},
    "recipes": set(),
    "job_settings": {"config"},
    "disk": set(),
    "cli": {"config", "interrupt", "near_miss", "paths"},
    "near_miss": set(),
    "import_path": {"config"},
    "interrupt": set(),
    "paths": {"config"},
    "locks": {"disk", "interrupt"},
    "calibration": {"config"},
    "run_folder": {"calibration", "config", "disk", "locks", "paths", "weights"},
    "starter_flags": set(),
    "reduction": set(),
    "layers": {"reduction"},
    "losses": {"reduction"},
    "metrics": set(),
    "attacks": set(),
    "models": {"layers", "config", "import_path", "recipes"},
    "weights": {"models", "config", "import_path", "disk"},
    "video": set(),
    "extraction": {"video", "data", "config", "disk", "locks", "paths"},
    "acquisition": {"data", "config", "disk", "locks", "paths"},
    "data": {"config", "disk", "locks", "paths", "recipes"},
    "training": {
        "data",
        "models",
        "losses",
        "attacks",
        "weights",
        "config",
        "import_path",
        "run_folder",
        "disk",
    },
    "evaluation": {"data", "metrics", "attacks", "config", "disk", "job_settings"},
    "robustness": {"data", "attacks", "metrics", "config", "import_path"},
    "explanation": {"attacks"},
    "prediction": {"data", "metrics", "config", "disk", "locks", "paths"},
    "export": {
        *("calibration", "data", "models", "weights", "config", "run_folder", "disk", "locks"),
        "paths",
    },
    "report": {"calibration", "config", "run_folder", "weights"},
    "commands": {
        *("cli", "config", "disk", "interrupt", "job_settings", "locks", "near_miss", "paths"),
        *("recipes", "run_folder", "starter_flags", "acquisition", "data", "prediction", "export"),
        *("pipeline", "report", "video", "extraction"),
    },
    "__main__": {"commands"},
    "demo": {"commands"},
}
# Leaves that every room may import.
EVERYWHERE = {"digests", "provenance", "untrusted"}
# The composition root: the one room that may know every other.
EVERYTHING = {"pipeline"}
# `python -m yt8m_gat.data.download` and such, earlier names of commands: they call the command.
COMMANDS = {
    *("data/download.py", "data/inspect.py", "data/label_space.py", "data/sample.py"),
    *("evaluation/beam.py", "evaluation/kaggle.py", "report/__main__.py"),
}
SCRIPTS = {"train", "eval", "inference"}


def imported_modules(path: Path) -> list[str]:
    """Absolute names of all modules that a file imports, wherever in the file."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                pytest.fail(f"{path}: relative import; write the absolute name")
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def package_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_rooms_import_only_what_they_may():
    violations = []
    for path in package_files():
        room = room_of(path)
        if room in EVERYTHING:
            continue
        forbidden = (set(ALLOWED) | EVERYTHING) - ALLOWED.get(room, set()) - {room}
        if path.relative_to(PACKAGE).as_posix() in COMMANDS:
            forbidden -= {"commands"}
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] == "yt8m_gat" and len(parts) > 1 and parts[1] in forbidden:
                violations.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not violations, "\n".join(violations)


def test_every_room_has_a_rule():
    assert {room_of(path) for path in package_files()} <= set(ALLOWED) | EVERYTHING | EVERYWHERE


def test_nothing_imports_the_scripts():
    for path in [*package_files(), *(ROOT / "benchmarks").rglob("*.py")]:
        assert not SCRIPTS & set(imported_modules(path)), path


def test_only_commands_define_flags():
    for path in package_files():
        if room_of(path) == "commands":
            continue
        assert not {"absl.flags", "absl.app"} & set(imported_modules(path)), path


@pytest.mark.parametrize(
    "room",
    [
        *("cli", "config", "disk", "interrupt", "locks", "paths", "run_folder", "starter_flags"),
        *(
            "calibration",
            "job_settings",
            "near_miss",
            "recipes",
            "digests",
            "provenance",
            "untrusted",
            "weights/files",
        ),
    ],
)
def test_leaves_need_the_standard_library_alone(room):
    import sys

    allowed = {"yt8m_gat", *sys.stdlib_module_names, *({"filelock"} if room == "locks" else ())}
    assert {name.split(".")[0] for name in imported_modules(PACKAGE / f"{room}.py")} <= allowed


def test_report_needs_no_tensorflow():
    for path in [*(PACKAGE / "report").rglob("*.py"), PACKAGE / "run_folder.py"]:
        names = imported_modules(path)
        assert not {"tensorflow", "keras"} & {name.split(".")[0] for name in names}, path
        weights = [name for name in names if name.startswith("yt8m_gat.weights")]
        assert all(name.startswith("yt8m_gat.weights.files") for name in weights), path
