"""Asks a TensorFlow Serving model server about the records of TFRecord files, over gRPC.

python docs/clients/grpc_client.py --server=localhost:8500 --model=yt8m 'test*.tfrecord'

Needs grpcio, tensorflow and tensorflow-serving-api.
"""

import argparse
from collections.abc import Iterator, Sequence

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def predict(
    stub: prediction_service_pb2_grpc.PredictionServiceStub, model: str, records: Sequence[bytes]
) -> Iterator[tuple[str, list[int], list[float]]]:
    """Yields video id, classes and their probabilities, the most probable first, per record."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default"
    request.inputs["example_bytes"].CopyFrom(tf.make_tensor_proto(records, tf.string))
    outputs = stub.Predict(request, timeout=30.0).outputs
    for video_id, classes, probabilities in zip(
        *(tf.make_ndarray(outputs[name]) for name in ("video_id", "class_indexes", "predictions")),
        strict=True,
    ):
        yield video_id.decode(), classes.tolist(), probabilities.tolist()


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line per record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--model", default="yt8m")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("pattern")
    options = parser.parse_args(arguments)
    with grpc.insecure_channel(options.server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        files = sorted(tf.io.gfile.glob(options.pattern))
        for batch in tf.data.TFRecordDataset(files).batch(options.batch_size):
            for video_id, classes, probabilities in predict(
                stub, options.model, batch.numpy().tolist()
            ):
                print(f"{video_id} {classes[0]} {probabilities[0]:.4f}")


if __name__ == "__main__":
    main()
