"""Asks a TensorFlow Serving model server about the records of TFRecord files, over REST.

python docs/clients/rest_client.py --server=localhost:8501 --model=yt8m 'test*.tfrecord'

Needs tensorflow, only to read the file.
"""

import argparse
import base64
import json
import urllib.request
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def predict(server: str, model: str, records: Sequence[bytes]) -> list[dict[str, Any]]:
    """Returns `video_id`, `class_indexes` and `predictions` of each record, by probability."""
    instances = [{"b64": base64.b64encode(record).decode()} for record in records]
    request = urllib.request.Request(
        f"http://{server}/v1/models/{model}:predict",
        json.dumps({"signature_name": "serving_default", "instances": instances}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30.0) as response:
        return json.load(response)["predictions"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line per record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="localhost:8501")
    parser.add_argument("--model", default="yt8m")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("pattern")
    options = parser.parse_args(arguments)
    files = sorted(tf.io.gfile.glob(options.pattern))
    for batch in tf.data.TFRecordDataset(files).batch(options.batch_size):
        for row in predict(options.server, options.model, batch.numpy().tolist()):
            print(f"{row['video_id']} {row['class_indexes'][0]} {row['predictions'][0]:.4f}")


if __name__ == "__main__":
    main()
