"""A server on loopback that is compatible with TensorFlow Serving's API. It is not TensorFlow
Serving, of which there is no binary for the machines that these tests run on.

Like it, it serves the newest numeric version below a folder, replays a version's warm-up requests
before serving it, keeps the old version until then, and answers over gRPC (Predict,
GetModelMetadata, GetModelStatus) and REST (`:predict`, `/metadata`, status), its errors included.
"""

import base64
import binascii
import contextlib
import json
import re
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

WARM_UP = "assets.extra/tf_serving_warmup_requests"
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_HTTP_STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.DATA_LOSS: 500,
}


class RequestError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


class ServedVersion:
    """One version of a model, loaded and warm."""

    def __init__(self, path):
        self.number = int(path.name)
        self.loaded = tf.saved_model.load(str(path))
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        self.signature_defs = saved.meta_graphs[0].signature_def
        self.num_warm_up = 0
        if (path / WARM_UP).exists():
            for record in tf.data.TFRecordDataset(str(path / WARM_UP)).as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                self.predict(log.predict_log.request)
                self.num_warm_up += 1

    def inputs_of(self, signature_name):
        if signature_name not in self.loaded.signatures:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature name: "{signature_name}" not found in signature def',
            )
        return self.loaded.signatures[signature_name].structured_input_signature[1]

    def run(self, signature_name, inputs):
        """Outputs by name, of NumPy inputs by name."""
        specs = self.inputs_of(signature_name)
        if set(inputs) != set(specs):
            raise invalid(
                "input keys do not match signature. "
                f"Sent: {sorted(inputs)}, expected: {sorted(specs)}"
            )
        tensors = {}
        for name, spec in specs.items():
            tensors[name] = tf.convert_to_tensor(inputs[name])
            if tensors[name].dtype != spec.dtype:
                raise invalid(
                    f"Expects arg {name} to be {spec.dtype.name} but "
                    f"{tensors[name].dtype.name} is provided"
                )
        try:
            outputs = self.loaded.signatures[signature_name](**tensors)
        except tf.errors.OpError as error:
            raise RequestError(_STATUS[error.error_code], error.message) from error
        return {name: output.numpy() for name, output in outputs.items()}

    def predict(self, request):
        signature_name = request.model_spec.signature_name or "serving_default"
        self.inputs_of(signature_name)
        inputs = {}
        for name, proto in request.inputs.items():
            try:
                # A proto may hold one value for all elements of a shape of any size.
                if np.prod([dim.size for dim in proto.tensor_shape.dim]) > proto.ByteSize():
                    raise ValueError("its shape has more elements than it has bytes")
                inputs[name] = tf.make_ndarray(proto)
            except (TypeError, ValueError, KeyError) as error:
                raise invalid(f"Tensor proto of {name} is malformed: {error}") from error
        outputs = self.run(signature_name, inputs)
        wanted = request.output_filter or sorted(outputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = self.number
        response.model_spec.signature_name = signature_name
        for name in wanted:
            if name not in outputs:
                raise invalid(f"output tensor alias not found in signature: {name}")
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response


class ModelServer:
    """Serves a folder of versions under a name, on free ports of 127.0.0.1, inside `with`."""

    def __init__(self, base_path, name="yt8m", poll_seconds=0.05):
        self.base_path = Path(base_path)
        self.name = name
        self.poll_seconds = poll_seconds
        self.failed = set()
        self._stop = threading.Event()
        self._current = None
        self._load_newest()

    def __enter__(self):
        self._grpc = grpc.server(futures.ThreadPoolExecutor(8))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(self), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(self), self._grpc)
        self.grpc_address = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.rest_address = f"127.0.0.1:{self._http.server_port}"
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.05,)),
            threading.Thread(target=self._watch),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()
        for thread in self._threads:
            thread.join()

    def version(self, name, number=None):
        """The version that is served; one that is being replaced stays alive with its requests."""
        current = self._current
        if name != self.name or number not in (None, current.number):
            at = "Latest" if number is None else f"Specific:{number}"
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {at}({name})"
            )
        return current

    @property
    def current(self):
        return self._current

    def _watch(self):
        while not self._stop.wait(self.poll_seconds):
            self._load_newest()

    def _load_newest(self):
        paths = [path for path in self.base_path.iterdir() if re.fullmatch("[0-9]+", path.name)]
        newest = max(paths, key=lambda path: int(path.name))
        current = self._current
        if newest in self.failed or (current and int(newest.name) <= current.number):
            return
        try:
            self._current = ServedVersion(newest)
        except (OSError, RequestError, tf.errors.OpError):
            if current is None:
                raise
            self.failed.add(newest)

    def metadata(self, name, number=None):
        version = self.version(name, number)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = name
        response.model_spec.version.value = version.number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature_def in version.signature_defs.items():
            signatures.signature_def[key].CopyFrom(signature_def)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, name, number=None):
        response = get_model_status_pb2.GetModelStatusResponse()
        state = response.model_version_status.add()
        state.version = self.version(name, number).number
        state.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        return response


def _number_of(model_spec):
    return model_spec.version.value if model_spec.HasField("version") else None


@contextlib.contextmanager
def _aborting(context):
    try:
        yield
    except RequestError as error:
        context.abort(error.code, str(error))


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self._server = server

    def Predict(self, request, context):
        with _aborting(context):
            if not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            spec = request.model_spec
            return self._server.version(spec.name, _number_of(spec)).predict(request)

    def GetModelMetadata(self, request, context):
        with _aborting(context):
            if list(request.metadata_field) != ["signature_def"]:
                raise invalid(f"Metadata field {list(request.metadata_field)} is not supported")
            return self._server.metadata(request.model_spec.name, _number_of(request.model_spec))


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self._server = server

    def GetModelStatus(self, request, context):
        with _aborting(context):
            return self._server.status(request.model_spec.name, _number_of(request.model_spec))


_URL = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<number>[0-9]+))?(?P<verb>:predict|/metadata)?"
)


def _handler_of(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            self._answer({None: server.status, "/metadata": server.metadata})

        def do_POST(self):
            self._answer({":predict": self._predict})

        def _predict(self, name, number):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            return _rest_predict(server.version(name, number), body)

        def _answer(self, verbs):
            match = _URL.fullmatch(self.path)
            try:
                if match is None or match["verb"] not in verbs:
                    raise invalid(f"Malformed request: {self.command} {self.path}")
                number = None if match["number"] is None else int(match["number"])
                answer, status = verbs[match["verb"]](match["name"], number), 200
            except RequestError as error:
                answer, status = {"error": str(error)}, _HTTP_STATUS.get(error.code, 400)
            if not isinstance(answer, dict):
                answer = json_format.MessageToDict(answer, preserving_proto_field_name=True)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """The tests' output is no place for an access log."""

    return Handler


def _rest_predict(version, body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise invalid("the body must be an object with one of 'instances' and 'inputs'")
    signature_name = request.get("signature_name", "serving_default")
    specs = version.inputs_of(signature_name)
    in_rows = "instances" in request
    inputs = _columns(request["instances"], specs) if in_rows else request["inputs"]
    if not _is_named(inputs):
        if len(specs) != 1:
            raise invalid(f"inputs must be an object with the keys {sorted(specs)}")
        inputs = dict.fromkeys(specs, inputs)
    arrays = {
        name: _array(name, values, specs[name]) if name in specs else np.zeros(0)
        for name, values in inputs.items()
    }
    outputs = version.run(signature_name, arrays)
    plain = {name: _plain(name, array) for name, array in outputs.items()}
    if len(plain) == 1:
        [plain] = plain.values()
    elif in_rows:
        rows = zip(*plain.values(), strict=True)
        plain = [dict(zip(plain, row, strict=True)) for row in rows]
    return {"predictions" if in_rows else "outputs": plain}


def _is_named(value):
    return isinstance(value, dict) and set(value) != {"b64"}


def _columns(instances, specs):
    if not isinstance(instances, list) or not instances:
        raise invalid("'instances' must be a list, not empty")
    if not any(_is_named(instance) for instance in instances):
        return instances
    if not all(_is_named(i) and set(i) == set(specs) for i in instances):
        raise invalid(f"each instance must be an object with the keys {sorted(specs)}")
    return {name: [instance[name] for instance in instances] for name in specs}


def _array(name, values, spec):
    try:
        return tf.constant(_decoded(values), spec.dtype).numpy()
    except (TypeError, ValueError, binascii.Error) as error:
        raise invalid(f"Failed to process element of {name}: {error}") from error


def _decoded(value):
    if isinstance(value, dict):
        if set(value) != {"b64"}:
            raise ValueError("an object must be {'b64': text}")
        return base64.b64decode(value["b64"], validate=True)
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def _plain(name, array):
    """As TensorFlow Serving writes them: strings as text, but base64 where named `..._bytes`."""
    if array.dtype != object:
        return array.tolist()
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(value).decode()} for value in array]
    return [value.decode() for value in array]
