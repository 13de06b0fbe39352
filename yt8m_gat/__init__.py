"""YouTube-8M video classification on Keras 3, with the Gated Adversarial Transformer family.

The names below, and the rooms of the package, are imported when they are first used, so that
`import yt8m_gat` does not wait for TensorFlow. docs/PYTHON.md has examples.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yt8m_gat import attacks, data, layers, losses, metrics, models, pipeline, training
    from yt8m_gat.config import ClipConfig, ObjectiveConfig
    from yt8m_gat.data.arrays import write_records
    from yt8m_gat.data.pairs import read
    from yt8m_gat.data.quantization import dequantize, quantize
    from yt8m_gat.data.schema import RecordSchema
    from yt8m_gat.models.registry import build_model
    from yt8m_gat.pipeline.run import Run, load_run
    from yt8m_gat.training.adversarial_model import AdversarialModel
    from yt8m_gat.training.objective import build_objective

__version__ = "0.1.0"

# Name -> the module that defines it.
_MODULES = {
    "AdversarialModel": "training.adversarial_model",
    "ClipConfig": "config",
    "ObjectiveConfig": "config",
    "RecordSchema": "data.schema",
    "Run": "pipeline.run",
    "build_model": "models.registry",
    "build_objective": "training.objective",
    "dequantize": "data.quantization",
    "load_run": "pipeline.run",
    "quantize": "data.quantization",
    "read": "data.pairs",
    "write_records": "data.arrays",
}
_ROOMS = ("attacks", "data", "layers", "losses", "metrics", "models", "pipeline", "training")

__all__ = [
    "AdversarialModel",
    "ClipConfig",
    "ObjectiveConfig",
    "RecordSchema",
    "Run",
    "attacks",
    "build_model",
    "build_objective",
    "data",
    "dequantize",
    "layers",
    "load_run",
    "losses",
    "metrics",
    "models",
    "pipeline",
    "quantize",
    "read",
    "training",
    "write_records",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
