"""From video files to official records: models of pictures and sound, PCA, quantizing, the job.

The names below are imported when they are first used, so that `extractor.json` is read without
TensorFlow.
"""

import importlib
from typing import Any

_NAMES = {
    "config": ("ExtractorConfig", "FeatureConfig"),
    "extractor": ("Extracted", "Extractor"),
    "job": ("extract",),
    "pca": ("PCA", "StreamingMoments"),
    "settings": ("ExtractionSettings",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
