"""Reading of records into batches.

The names below are imported when they are first used, so that commands without tensors, such as
`yt8m-gat label-space`, start without TensorFlow.
"""

import importlib
from typing import Any

_NAMES = {
    "arrays": ("YOUTUBE8M_SCHEMA", "array_batches", "write_records"),
    "clips": ("parse_clip_batch",),
    "dataset": ("Shuffle", "as_pair", "as_pairs", "find_files", "make_dataset", "no_examples"),
    "description": ("RecordDescription", "describe_record", "discover"),
    "diagnosis": ("bad_record_from",),
    "label_check": ("check_labels", "no_label"),
    "errors": ("BadRecordError", "Fault", "TooManyBadRecordsError"),
    "label_space": ("LabelMap", "read_label_names"),
    "pairs": ("read",),
    "parsing": ("parse_frame_batch", "parse_video_batch"),
    "preprocessing": ("normalize_features", "preprocess"),
    "quantization": ("dequantize", "quantize", "quantize_as_youtube8m"),
    "reader": ("Reader",),
    "record_files": ("check_framing", "count_records", "estimate_records"),
    "schema": ("RecordSchema",),
    "skipping": ("SkippedRecords", "new_skipped"),
    "segments": ("parse_rated_segments", "parse_windows", "read_class_ids"),
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
