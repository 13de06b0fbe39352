"""Serialization of raw clips as MediaSequence records.

One `tf.SequenceExample` a clip:

| key | where | kind | value |
|---|---|---|---|
| `image/encoded` | feature list | bytes | T x a JPEG file, in RGB |
| `image/timestamp` | feature list | int64 | T x microseconds from the start of the clip |
| `image/format`, `image/channels` | context | bytes, int64 | `JPEG`, 3 |
| `image/frame_rate` | context | float | frames a second |
| `image/height`, `image/width` | context | int64 | pixels |
| `clip/label/index` | context | int64 | numbers of the classes |
| `clip/label/text` | context | bytes | their names, in the same order |
| `clip/media_id` | context | bytes | the id |
| `clip/start/timestamp`, `clip/end/timestamp` | context | int64 | microseconds in the file |
| `WAVEFORM/feature/floats` | feature list | float | 1 x the sound, one channel, if there is any |
| `WAVEFORM/feature/sample_rate` | context | float | samples a second |

Reference: MediaPipe, `mediapipe/util/sequence/README.md`; DMVR, `examples/generate_from_file.py`,
for `clip/label/text` and the sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf


def clip_record(
    clip_id: bytes,
    jpegs: Sequence[bytes],
    times: Sequence[float],
    labels: Sequence[int],
    names: Sequence[str],
    *,
    height: int,
    width: int,
    channels: int = 3,
    frame_rate: float,
    start: float = 0.0,
    seconds: float,
    sound: Any = None,
    sample_rate: int = 0,
) -> bytes:
    """Serializes a raw clip without any checks.

    Args:
        clip_id: The id.
        jpegs: Its frames, JPEG files.
        times: When each is shown, in seconds from the start of the clip.
        labels: Numbers of its classes.
        names: Names of all classes.
        height: Of its frames, in pixels.
        width: Of its frames, in pixels.
        channels: Of its frames.
        frame_rate: Frames a second.
        start: Where the clip starts in its file, in seconds.
        seconds: Its length.
        sound: Its samples, one channel; None: no sound.
        sample_rate: Samples a second.
    """
    context = {
        "image/format": _bytes([b"JPEG"]),
        "image/channels": _integers([channels]),
        "image/frame_rate": _floats([frame_rate]),
        "image/height": _integers([height]),
        "image/width": _integers([width]),
        "clip/label/index": _integers(labels),
        "clip/label/text": _bytes(names[label].encode() for label in labels),
        "clip/media_id": _bytes([clip_id]),
        "clip/start/timestamp": _integers([_microseconds(start)]),
        "clip/end/timestamp": _integers([_microseconds(start + seconds)]),
    }
    lists = {
        "image/encoded": [_bytes([jpeg]) for jpeg in jpegs],
        "image/timestamp": [_integers([_microseconds(time)]) for time in times],
    }
    if sound is not None:
        context["WAVEFORM/feature/sample_rate"] = _floats([sample_rate])
        lists["WAVEFORM/feature/floats"] = [_floats(sound)]
    record = tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(
            feature_list={name: tf.train.FeatureList(feature=list) for name, list in lists.items()}
        ),
    )
    # Otherwise the entries of a map may have any order.
    return record.SerializeToString(deterministic=True)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _bytes(values: Iterable[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=list(values)))


def _integers(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=list(values)))


def _floats(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=list(values)))
