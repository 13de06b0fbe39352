"""Asks a TensorFlow Serving model server for the tags of a video's frames, over REST.

python docs/clients/images_client.py --server=localhost:8501 --model=yt8m frames/*.jpg

The export must have the signature `images` (docs/SERVING.md). Needs the standard library only.
"""

import argparse
import base64
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def predict(
    server: str, model: str, frames: Sequence[bytes], waveform: Sequence[float] | None = None
) -> dict[str, Any]:
    """Returns `class_indexes` and `predictions` of a video, by probability.

    The frames are JPEG or PNG files in order. A model that reads sound needs the waveform, 16 kHz
    from the first frame on; an empty one is silence.
    """
    instance: dict[str, Any] = {"images": [{"b64": base64.b64encode(x).decode()} for x in frames]}
    if waveform is not None:
        instance["waveform"] = list(waveform) or [0.0]
    request = urllib.request.Request(
        f"http://{server}/v1/models/{model}:predict",
        json.dumps({"signature_name": "images", "instances": [instance]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300.0) as response:
        return json.load(response)["predictions"][0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the classes of the video, the most probable first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="localhost:8501")
    parser.add_argument("--model", default="yt8m")
    parser.add_argument("--silent", action="store_true", help="the model reads sound: send silence")
    parser.add_argument("frames", nargs="+", help="JPEG or PNG files, in the order of time")
    options = parser.parse_args(arguments)
    frames = [Path(path).read_bytes() for path in options.frames]
    row = predict(options.server, options.model, frames, [] if options.silent else None)
    for number, probability in zip(row["class_indexes"], row["predictions"], strict=True):
        print(f"{number} {probability:.4f}")


if __name__ == "__main__":
    main()
