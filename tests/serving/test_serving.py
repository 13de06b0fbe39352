"""The official clients and our exported model, through a server that speaks Serving's API."""

import base64
import importlib.util
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip(
    "tensorflow_serving",
    reason="the stubs are not installed: run `make env` anew",
    exc_type=ImportError,
)

from exported_model import (
    FRAME_SIZES,
    MAX_FRAMES,
    NUM_CLASSES,
    classifier_of,
    export,
    records_of_all_lengths,
    schema_of,
)
from google.protobuf import text_format
from model_server import WARM_UP, ModelServer, ServedVersion
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from yt8m_gat.data import dequantize, parse_frame_batch, preprocess
from yt8m_gat.export.warm_up import longest_record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAME = "yt8m"
RECORDS = records_of_all_lengths()


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / NAME
    export("GAT", path)
    return path


@pytest.fixture(scope="module")
def server(base_path):
    with ModelServer(base_path) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def expected():
    """video id -> probabilities [C] of the Keras model in process."""
    return in_process(classifier_of("GAT"))


def in_process(classifier):
    batch = parse_frame_batch(tf.constant(RECORDS), schema_of("GAT"), with_labels=False)
    features, mask = preprocess(batch["features"], batch["num_frames"])
    logits = classifier({**features, "frame_mask": mask}, training=False)
    return dict(zip(batch["video_id"].numpy(), tf.sigmoid(logits).numpy(), strict=True))


def predict_request(records, signature_name="serving_default"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature_name
    request.inputs["example_bytes"].CopyFrom(tf.make_tensor_proto(records, tf.string))
    return request


def arrays(response):
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def post(server, body, path=f"/v1/models/{NAME}:predict"):
    """(status, answer); a body that is no bytes is sent as JSON."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.rest_address}{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(server, path):
    with urllib.request.urlopen(f"http://{server.rest_address}{path}", timeout=30) as response:
        return json.load(response)


def in_base64(records):
    return [{"b64": base64.b64encode(record).decode()} for record in records]


def assert_top(expected, video_ids, class_indexes, predictions):
    """Each row holds the 20 greatest probabilities of its video, and their classes."""
    for video_id, classes, probabilities in zip(video_ids, class_indexes, predictions, strict=True):
        of_video = expected[video_id]
        top = np.sort(of_video)[:-21:-1]
        np.testing.assert_allclose(probabilities, top, rtol=0, atol=1e-6)
        np.testing.assert_allclose(of_video[classes], top, rtol=0, atol=1e-6)


def assert_lives(stub, expected):
    outputs = arrays(stub.Predict(predict_request(RECORDS[3:5]), timeout=30))
    assert_top(expected, outputs["video_id"], outputs["class_indexes"], outputs["predictions"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 5, len(RECORDS)])
def test_grpc_predictions_are_those_in_process(stub, expected, size):
    for first in range(0, len(RECORDS), size):
        chosen = RECORDS[first : first + size]
        response = stub.Predict(predict_request(chosen), timeout=30)
        assert response.model_spec.version.value == 1
        outputs = arrays(response)
        assert outputs["video_id"].tolist() == list(expected)[first : first + size]
        assert_top(expected, outputs["video_id"], outputs["class_indexes"], outputs["predictions"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, len(RECORDS)])
def test_rest_predictions_are_those_in_process(server, expected, size):
    for first in range(0, len(RECORDS), size):
        chosen = RECORDS[first : first + size]
        status, answer = post(server, {"instances": in_base64(chosen)})
        assert status == 200
        columns = [
            [row[name] for row in answer["predictions"]]
            for name in ("video_id", "class_indexes", "predictions")
        ]
        assert [video_id.encode() for video_id in columns[0]] == list(expected)[first:][:size]
        assert_top(expected, [v.encode() for v in columns[0]], *columns[1:])


@pytest.mark.slow
def test_rest_takes_rows_and_columns(server):
    forms = [
        {"instances": [{"example_bytes": encoded} for encoded in in_base64(RECORDS)]},
        {"inputs": {"example_bytes": in_base64(RECORDS)}},
        {"inputs": in_base64(RECORDS), "signature_name": "serving_default"},
    ]
    _, answer = post(server, {"instances": in_base64(RECORDS)})
    rows = answer["predictions"]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert post(server, forms[0])[1] == {"predictions": rows}
    assert post(server, forms[1])[1] == {"outputs": columns}
    assert post(server, forms[2])[1] == {"outputs": columns}
    assert post(server, forms[0], f"/v1/models/{NAME}/versions/1:predict")[0] == 200


def test_frames_over_grpc_and_rest(server, stub, expected):
    batch = parse_frame_batch(tf.constant(RECORDS), schema_of("GAT"), with_labels=False)
    frames = tf.concat([dequantize(batch["features"][f]) for f in FRAME_SIZES], axis=-1).numpy()
    num_frames = batch["num_frames"].numpy()[:, np.newaxis]
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "frames"
    request.inputs["rgb_and_audio"].CopyFrom(tf.make_tensor_proto(frames))
    request.inputs["num_frames"].CopyFrom(tf.make_tensor_proto(num_frames))
    found = arrays(stub.Predict(request, timeout=30))["predictions"]
    wanted = np.stack(list(expected.values()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    instances = [
        {"rgb_and_audio": clip.tolist(), "num_frames": count.tolist()}
        for clip, count in zip(frames, num_frames, strict=True)
    ]
    status, answer = post(server, {"signature_name": "frames", "instances": instances})
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], wanted, rtol=0, atol=1e-6)


def test_attention_profiles_over_grpc_and_rest(server, stub):
    request = predict_request(RECORDS, "attention")
    found = arrays(stub.Predict(request, timeout=30))
    real = np.arange(MAX_FRAMES) < found["num_frames"][:, np.newaxis]
    body = {"signature_name": "attention", "inputs": in_base64(RECORDS)}
    answer = post(server, body)[1]["outputs"]
    for name in ("attention_rgb", "attention_audio"):
        assert (found[name][~real] == 0).all()
        np.testing.assert_allclose(found[name].sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(answer[name], found[name], rtol=0, atol=1e-6)
    request.output_filter.append("attention_rgb")
    assert set(stub.Predict(request, timeout=30).outputs) == {"attention_rgb"}


@pytest.mark.slow
def test_concurrent_clients_each_get_their_own_rows(server, expected):
    """16 clients, 160 requests of 1 to 8 records, half over gRPC and half over REST."""

    def client(seed):
        generator = np.random.default_rng(seed)
        rows = 0
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for _ in range(10):
                chosen = generator.choice(len(RECORDS), generator.integers(1, 9))
                records = [RECORDS[index] for index in chosen]
                ids = [list(expected)[index] for index in chosen]
                if seed % 2:
                    found = arrays(stub.Predict(predict_request(records), timeout=60))
                    found["video_id"] = found["video_id"].tolist()
                else:
                    body = {"inputs": in_base64(records)}
                    found = post(server, body)[1]["outputs"]
                    found["video_id"] = [video_id.encode() for video_id in found["video_id"]]
                assert found["video_id"] == ids
                assert_top(expected, ids, found["class_indexes"], found["predictions"])
                rows += len(ids)
        return rows

    with ThreadPoolExecutor(16) as pool:
        rows = sum(pool.map(client, range(16)))
    print(f"16 clients, 160 requests, {rows} rows compared")


def _no_model_name(request):
    request.ClearField("model_spec")


def _another_model(request):
    request.model_spec.name = "another"


def _another_version(request):
    request.model_spec.version.value = 99


def _another_signature(request):
    request.model_spec.signature_name = "classify"


def _no_input(request):
    request.inputs.clear()


def _another_input(request):
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto([b""]))


def _floats(request):
    request.inputs["example_bytes"].CopyFrom(tf.make_tensor_proto([1.0]))


def _a_matrix(request):
    request.inputs["example_bytes"].CopyFrom(tf.make_tensor_proto([[RECORDS[0]]]))


def _a_lying_shape(request):
    request.inputs["example_bytes"].tensor_shape.dim[0].size = 10**9


def _no_dtype(request):
    request.inputs["example_bytes"].dtype = 0


def _no_output(request):
    request.output_filter.append("logits")


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (_no_model_name, "INVALID_ARGUMENT", "Missing ModelSpec"),
        (_another_model, "NOT_FOUND", "Servable not found"),
        (_another_version, "NOT_FOUND", "Servable not found"),
        (_another_signature, "FAILED_PRECONDITION", "not found in signature def"),
        (_no_input, "INVALID_ARGUMENT", "input keys do not match"),
        (_another_input, "INVALID_ARGUMENT", "input keys do not match"),
        (_floats, "INVALID_ARGUMENT", "Expects arg example_bytes to be string"),
        (_a_matrix, "INVALID_ARGUMENT", "example_bytes must be"),
        (_a_lying_shape, "INVALID_ARGUMENT", "more elements than it has bytes"),
        (_no_dtype, "INVALID_ARGUMENT", "is malformed"),
        (_no_output, "INVALID_ARGUMENT", "output tensor alias not found"),
    ],
)
def test_a_malformed_grpc_request_gets_an_error(stub, expected, change, code, message):
    request = predict_request(RECORDS[:2])
    change(request)
    with pytest.raises(grpc.RpcError, match=message) as raised:
        stub.Predict(request, timeout=30)
    assert raised.value.code().name == code
    assert_lives(stub, expected)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "JSON Parse error"),
        (b"\xff\xfe\x00", 400, "JSON Parse error"),
        (b"[" * 5000, 400, "JSON Parse error"),
        ([], 400, "'instances' and 'inputs'"),
        ({}, 400, "'instances' and 'inputs'"),
        ({"instances": [], "inputs": []}, 400, "'instances' and 'inputs'"),
        ({"instances": []}, 400, "not empty"),
        ({"instances": {"b64": ""}}, 400, "must be a list"),
        ({"instances": [{"b64": "***"}]}, 400, "Failed to process element"),
        ({"instances": [{"b64": 1}]}, 400, "Failed to process element"),
        ({"instances": [{"example": {"b64": ""}}]}, 400, "keys ['example_bytes']"),
        ({"instances": [1.5]}, 400, "Failed to process element"),
        ({"instances": [{"b64": "bm8gcmVjb3Jk"}]}, 400, "the payload is no tf.Example"),
        ({"inputs": {"examples": [{"b64": ""}]}}, 400, "input keys do not match"),
        ({"inputs": []}, 400, "example_bytes must be"),
        ({"signature_name": "classify", "inputs": []}, 400, "not found in signature def"),
        ({"signature_name": "frames", "inputs": [[1.0]]}, 400, "an object with the keys"),
        (
            {
                "signature_name": "frames",
                "instances": [{"rgb_and_audio": [[0.0] * 12], "num_frames": [2]}],
            },
            400,
            "num_frames must be from 1 to the T",
        ),
    ],
)
def test_a_malformed_rest_request_gets_an_error(server, stub, expected, body, status, message):
    found, answer = post(server, body)
    assert (found, set(answer)) == (status, {"error"})
    assert message in answer["error"]
    assert_lives(stub, expected)


def test_unknown_places_get_an_error(server, stub, expected):
    good = {"instances": in_base64(RECORDS[:1])}
    for path, status in (
        ("/v1/models/another:predict", 404),
        (f"/v1/models/{NAME}/versions/9:predict", 404),
        (f"/v1/models/{NAME}:classify", 400),
        ("/", 400),
    ):
        assert post(server, good, path)[0] == status
    assert_lives(stub, expected)


def test_mutated_records_never_stop_the_server(stub, expected):
    """300 requests, each a good record with some of its bytes changed, cut or repeated."""
    generator = np.random.default_rng(0)
    answered = refused = 0
    for _ in range(300):
        record = bytearray(RECORDS[generator.integers(len(RECORDS))])
        for _ in range(generator.integers(1, 4)):
            place = int(generator.integers(len(record)))
            kind = generator.integers(3)
            if kind == 0:
                record[place] = int(generator.integers(256))
            elif kind == 1:
                del record[place:]
                record = record or bytearray(b"\x0a")
            else:
                record[place:place] = record[place : place + 9]
        try:
            outputs = arrays(stub.Predict(predict_request([bytes(record)]), timeout=30))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "the given batch:record 0" in error.details()
            refused += 1
        else:
            assert np.isfinite(outputs["predictions"]).all()
            answered += 1
    print(f"300 mutated records: {answered} still good, {refused} refused")
    assert answered > 5 and refused > 100
    assert_lives(stub, expected)


@pytest.mark.slow
def test_a_new_version_takes_over_while_clients_ask(tmp_path):
    """No request fails or mixes the two versions; the first one's files stay as they were."""
    base_path = tmp_path / NAME
    _, first = export("FrameLevelLogisticModel", base_path, seed=1)
    expected = {seed: in_process(classifier_of("FrameLevelLogisticModel", seed)) for seed in (1, 2)}
    assert not np.allclose(expected[1][b"clip03"], expected[2][b"clip03"], atol=1e-2)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    counts = {1: 0, 2: 0}
    lock, done = threading.Lock(), threading.Event()

    def client(server, seed):
        generator = np.random.default_rng(seed)
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            latest = 1
            # Two cores must suffice for the clients, the server and an export.
            while not done.wait(0.01):
                chosen = [RECORDS[i] for i in generator.choice(len(RECORDS), 2)]
                response = stub.Predict(predict_request(chosen), timeout=60)
                version = response.model_spec.version.value
                assert version >= latest
                latest = version
                found = arrays(response)
                assert_top(
                    expected[version],
                    found["video_id"],
                    found["class_indexes"],
                    found["predictions"],
                )
                with lock:
                    counts[version] += 1

    def wait_for(version):
        deadline = 600
        while counts[version] < 20:
            assert deadline, f"version {version} was not served"
            deadline -= 1
            done.wait(0.1)
            for running in clients:
                if running.done():
                    running.result()

    with ModelServer(base_path) as server, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, server, seed) for seed in range(4)]
        try:
            wait_for(1)
            export("FrameLevelLogisticModel", base_path, seed=2)
            wait_for(2)
            (base_path / "3").mkdir()
            (base_path / "3" / "saved_model.pb").write_bytes(b"half of a copy")
            for _ in range(100):
                done.wait(0.05)
                if server.failed:
                    break
            assert server.failed == {base_path / "3"}
            assert server.current.number == 2
        finally:
            done.set()
        for running in clients:
            running.result()
    assert {path: path.read_bytes() for path in before} == before
    print(f"{counts[1]} requests to version 1, {counts[2]} to version 2")


def test_warm_up_requests_are_what_serving_reads(base_path, server):
    path = base_path / "1" / WARM_UP
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    assert server.current.num_warm_up == len(logs) == 3
    requests = {log.predict_log.request.model_spec.signature_name: log for log in logs}
    assert set(requests) == {"serving_default", "frames", "attention"}
    wanted = prediction_log_pb2.PredictionLog()
    wanted.predict_log.request.CopyFrom(predict_request([longest_record(schema_of("GAT"))]))
    wanted.predict_log.request.model_spec.name = ""
    assert requests["serving_default"] == wanted
    frames = requests["frames"].predict_log.request.inputs
    assert tf.make_ndarray(frames["rgb_and_audio"]).shape == (1, MAX_FRAMES, 12)
    assert tf.make_ndarray(frames["num_frames"]).tolist() == [[MAX_FRAMES]]


@pytest.mark.parametrize("name", ["MoeModel", "LstmModel"])
def test_each_kind_of_model_is_served_warm(tmp_path, name):
    _, version = export(name, tmp_path)
    served = ServedVersion(version)
    assert served.num_warm_up == len(served.loaded.signatures)
    records = records_of_all_lengths(name)
    outputs = arrays(served.predict(predict_request(records)))
    assert outputs["predictions"].shape == (len(records), 20)


def test_metadata_and_status(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = NAME
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.GetModelMetadata(request, timeout=30)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        status_request = get_model_status_pb2.GetModelStatusRequest()
        status_request.model_spec.name = NAME
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status_request)
    assert {"serving_default", "frames", "attention"} <= set(signatures.signature_def)
    predictions = signatures.signature_def["frames"].outputs["predictions"]
    assert [dim.size for dim in predictions.tensor_shape.dim] == [-1, NUM_CLASSES]
    assert [(s.version, s.state) for s in status.model_version_status] == [(1, 30)]
    [rest_status] = get(server, f"/v1/models/{NAME}")["model_version_status"]
    assert (rest_status["version"], rest_status["state"]) == ("1", "AVAILABLE")
    metadata = get(server, f"/v1/models/{NAME}/metadata")["metadata"]["signature_def"]
    assert "frames" in metadata["signature_def"]


def load_client(name):
    path = ROOT / "docs" / "clients" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["grpc_client", "rest_client"])
def test_the_clients_of_the_documentation_work(server, expected, tmp_path, capsys, name):
    client = load_client(name)
    page = (ROOT / "docs" / "SERVING.md").read_text(encoding="utf-8")
    command = client.__doc__.splitlines()[2]
    assert command.startswith(f"python docs/clients/{name}.py --server=localhost:")
    assert f"    {command}\n" in page and f"(clients/{name}.py)" in page
    with tf.io.TFRecordWriter(str(tmp_path / "test00.tfrecord")) as writer:
        for record in RECORDS:
            writer.write(record)
    address = server.grpc_address if name == "grpc_client" else server.rest_address
    options = [f"--server={address}", f"--model={NAME}", "--batch_size=4"]
    client.main([*options, str(tmp_path / "test*.tfrecord")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [video_id.encode() for video_id, *_ in lines] == list(expected)
    for video_id, index, probability in lines:
        of_video = expected[video_id.encode()]
        assert of_video[int(index)] == pytest.approx(of_video.max(), abs=1e-6)
        assert float(probability) == pytest.approx(of_video.max(), abs=6e-5)


def test_the_model_config_of_the_documentation_is_one():
    text = (ROOT / "docs" / "SERVING.md").read_text(encoding="utf-8")
    block = text.split("```protobuf\n")[1].split("```")[0]
    config = text_format.Parse(block, model_server_config_pb2.ModelServerConfig())
    [model] = config.model_config_list.config
    assert (model.name, model.model_platform) == (NAME, "tensorflow")
