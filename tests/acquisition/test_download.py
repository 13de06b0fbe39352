"""The downloader against a server on 127.0.0.1 that misbehaves on purpose."""

import hashlib
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from yt8m_gat.acquisition import download as downloads
from yt8m_gat.acquisition.download import (
    Downloader,
    DownloadError,
    Partition,
    download,
    in_shard,
    parse_shard,
    read_plan,
)
from yt8m_gat.commands.download import main
from yt8m_gat.config import ConfigError

FAST = {"timeout": 5.0, "first_pause": 0.001, "max_attempts": 3}
CONTENT = bytes(range(256)) * 500
STALL_AT = 1000


def md5(content):
    return hashlib.md5(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; each fault in `faults[path]` spoils one answer, in order.

    Attributes:
        log: (path, Range header or None) of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.faults = {}
        self.log = []
        self.knows_ranges = True
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Ignores a client that hangs up."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.log.append((self.path, wanted))
        fault = (server.faults.get(self.path) or [None]).pop(0)
        content = server.files.get(self.path)
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if fault == "no answer":
            return
        if content is None:
            self.send_error(404)
            return
        offset = 0
        if fault == "other range":
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
        elif wanted and server.knows_ranges:
            offset = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if offset >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {offset}-{end}/{len(content)}")
        else:
            self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(content) - offset))
        self.end_headers()
        body = content[offset:]
        if fault == "other bytes":
            body = body[::-1]
        elif fault in ("break off", "no length"):
            body = body[: len(body) // 2]
        elif fault == "nothing":
            body = b""
        elif fault == "stall":
            body = body[:STALL_AT]
        self.wfile.write(body)
        if fault == "stall":
            server.ended.wait(20)


@pytest.fixture
def server(monkeypatch):
    # Without this a proxy of the environment would be used for 127.0.0.1 too.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.ended.set()
        running.shutdown()
        thread.join()


def fetch(server, path, content=CONTENT, **options):
    server.files.setdefault("/f", content)
    return Downloader(**{**FAST, **options}).fetch(f"{server.url}/f", path, md5(content))


def ranges(server):
    return [wanted for _, wanted in server.log]


def test_a_whole_file_is_fetched_once(server, tmp_path):
    path = tmp_path / "f"
    assert fetch(server, path) is True
    assert path.read_bytes() == CONTENT
    assert fetch(server, path) is False
    assert ranges(server) == [None]
    assert os.listdir(tmp_path) == ["f"]


def test_an_empty_file(server, tmp_path):
    assert fetch(server, tmp_path / "f", content=b"") is True
    assert (tmp_path / "f").read_bytes() == b""


def test_a_finished_file_with_other_content_is_fetched_anew(server, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"damaged")
    assert fetch(server, path) is True
    assert path.read_bytes() == CONTENT


def test_broken_connections_are_continued_where_they_broke(server, tmp_path):
    server.faults["/f"] = ["break off"] * 4
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    # Each answer has half of the rest; there are more breaks than max_attempts, but all progress.
    half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
    assert ranges(server)[:3] == [None, f"bytes={half}-", f"bytes={half + quarter}-"]
    assert len(server.log) == 5 > FAST["max_attempts"]


def test_without_ranges_it_begins_anew(server, tmp_path):
    server.knows_ranges = False
    server.faults["/f"] = ["break off"]
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_range_that_begins_elsewhere_is_not_appended(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT[:99])
    server.faults["/f"] = ["other range"]
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=99-"]


def test_breaking_off_at_the_same_byte_for_ever_is_given_up(server, tmp_path):
    server.knows_ranges = False
    server.faults["/f"] = ["break off"] * 50
    with pytest.raises(DownloadError, match=r"/f: given up after 3 attempts: .* bytes early"):
        fetch(server, tmp_path / "f")
    assert len(server.log) == 3
    assert os.listdir(tmp_path) == ["f.part"]


@pytest.mark.parametrize("fault", ["no answer", "nothing", "no length", 503, 429, 500])
def test_passing_faults_are_tried_again(server, tmp_path, fault):
    server.faults["/f"] = [fault] * 2
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_lasting_503_is_given_up(server, tmp_path):
    server.faults["/f"] = [503] * 9
    with pytest.raises(DownloadError, match=r"given up after 3 attempts: HTTP Error 503"):
        fetch(server, tmp_path / "f")
    assert len(server.log) == 3


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/none: HTTP Error 404"):
        Downloader(**FAST).fetch(f"{server.url}/none", tmp_path / "f", md5(b""))
    assert len(server.log) == 1
    assert not (tmp_path / "f").exists()


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(DownloadError, match=r"given up after 3 attempts"):
        Downloader(**FAST).fetch("http://127.0.0.1:9/f", tmp_path / "f", md5(b""))


def test_a_connection_that_stands_still_is_broken_off(server, tmp_path):
    server.faults["/f"] = ["stall"]
    fetch(server, tmp_path / "f", timeout=0.2)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={STALL_AT}-"]


def test_a_wrong_checksum_is_tried_again(server, tmp_path):
    server.faults["/f"] = ["other bytes"]
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_a_checksum_that_stays_wrong_leaves_no_file(server, tmp_path):
    server.files["/f"] = b"something else"
    with pytest.raises(
        DownloadError, match=f"/f: given up after 3 attempts: its MD5 is .*{md5(CONTENT)}"
    ):
        fetch(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert len(server.log) == 3


@pytest.mark.parametrize(
    ("part", "requests"),
    [
        (CONTENT[:1234], ["bytes=1234-"]),
        (CONTENT, [f"bytes={len(CONTENT)}-"]),
        (CONTENT + b"more", [f"bytes={len(CONTENT) + 4}-", None]),
        (b"other" * 9, ["bytes=45-", None]),
        (b"", [None]),
    ],
)
def test_a_part_of_an_earlier_call(server, tmp_path, part, requests):
    (tmp_path / "f.part").write_bytes(part)
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == requests
    assert os.listdir(tmp_path) == ["f"]


def test_a_disk_that_is_full_is_no_network_fault(server, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, chunk):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "open", Full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, tmp_path / "f")
    assert len(server.log) == 1


def serve_plan(server, num_files=7, **content):
    names = [f"train{i:02}.tfrecord" for i in range(num_files)]
    contents = {name: name.encode() * (i * 1000 + 1) for i, name in enumerate(names)}
    contents.update(content)
    server.files.update({f"/d/{name}": content for name, content in contents.items()})
    plan = {"files": {name: md5(content) for name, content in contents.items()}}
    server.files["/plan.json"] = json.dumps(plan).encode()
    return contents


def command(server, folder, *arguments):
    return [
        "--partition=2/frame/train",
        f"--plan_url={server.url}/plan.json",
        f"--base_url={server.url}/d",
        f"--output_dir={folder}",
        *arguments,
    ]


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_fetches_the_plan_through_every_fault(server, tmp_path, capsys):
    contents = serve_plan(server)
    server.faults = {
        "/plan.json": [503, "break off"],
        "/d/train01.tfrecord": ["break off", 500],
        "/d/train02.tfrecord": ["other bytes"],
        "/d/train03.tfrecord": ["no answer", "break off"],
    }
    assert main(command(server, tmp_path / "new" / "data"), **FAST) == 0
    assert contents_of(tmp_path / "new" / "data") == contents
    assert "7 files fetched, 0 there already" in capsys.readouterr().out
    num_requests = len(server.log)
    assert main(command(server, tmp_path / "new" / "data"), **FAST) == 0
    assert "0 files fetched, 7 there already" in capsys.readouterr().out
    assert len(server.log) == num_requests + 1


def test_one_file_that_cannot_be_had_does_not_keep_the_others_back(server, tmp_path, capsys):
    contents = serve_plan(server)
    del server.files["/d/train03.tfrecord"]
    assert main(command(server, tmp_path), **FAST) == 1
    captured = capsys.readouterr()
    assert "train03.tfrecord: HTTP Error 404" in captured.err
    assert "6 files fetched" in captured.out
    del contents["train03.tfrecord"]
    whole = {name: c for name, c in contents_of(tmp_path).items() if not name.endswith(".part")}
    assert whole == contents


def test_after_many_failures_no_further_file_is_begun(server, tmp_path, capsys):
    contents = serve_plan(server, num_files=30)
    for name in contents:
        del server.files[f"/d/{name}"]
    assert main(command(server, tmp_path, "--num_workers=2"), **FAST) == 1
    assert "files not begun after" in capsys.readouterr().err
    assert len(server.log) <= 1 + downloads.MAX_FAILED_FILES + 1


def test_shards_hold_each_file_once(server, tmp_path):
    contents = serve_plan(server)
    for shard in (1, 2, 3):
        assert main(command(server, tmp_path / str(shard), f"--shard={shard},3"), **FAST) == 0
    shards = [contents_of(tmp_path / str(shard)) for shard in (1, 2, 3)]
    assert sum(map(len, shards)) == len(contents)
    assert {**shards[0], **shards[1], **shards[2]} == contents
    for index, files in enumerate(shards):
        assert {int(md5(name.encode()), 16) % 3 for name in files} <= {index}


def test_a_shard_by_hand():
    # md5sum of "train00.tfrecord": 51cb6d39a598f7b5cf56931e5947527e.
    assert [x for x in range(1, 17) if in_shard("train00.tfrecord", (x, 16))] == [15]
    assert [x for x in range(1, 11) if in_shard("train00.tfrecord", (x, 10))] == [9]


def test_at_most_num_workers_at_a_time(server, tmp_path, monkeypatch):
    contents = serve_plan(server, num_files=9)
    lock, running, most = threading.Lock(), 0, 0

    def slow(self, url, path, md5):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(Downloader, "fetch", slow)
    summary = download(dict.fromkeys(contents, ""), server.url, tmp_path, num_workers=3)
    assert (summary.fetched, most) == (9, 3)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "..",
        ".x",
        "",
        "C:x",
        "a\0b",
        "x.part",
        "-x",
        "a b",
        "x" * 300,
    ],
)
def test_names_that_could_leave_the_folder_are_refused(name):
    plan = json.dumps({"files": {"ok.tfrecord": md5(b""), name: md5(b"")}}).encode()
    with pytest.raises(DownloadError, match="a file must have a plain name"):
        read_plan(plan, "u")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "u is no download plan"),
        (b"[]", "u is no download plan"),
        (b"{}", "u is no download plan"),
        (b"\xff\xfe", "u is no download plan"),
        (b'{"files": []}', "must map at least one file name"),
        (b'{"files": {}}', "must map at least one file name"),
        (b'{"files": {"a": "123"}}', r"file a must have an MD5 .* Received: '123'"),
        (b'{"files": {"a": 7}}', r"file a must have an MD5 .* Received: '7'"),
    ],
)
def test_what_is_no_plan_is_refused(content, message):
    with pytest.raises(DownloadError, match=message):
        read_plan(content, "u")


def test_a_plan_without_end_is_refused(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(downloads, "MAX_PLAN_BYTES", 1000)
    server.files["/plan.json"] = b" " * 5000
    assert main(command(server, tmp_path), **FAST) == 2
    assert "more than 1000 bytes" in capsys.readouterr().err


def test_a_missing_plan_is_an_error_in_one_line(server, tmp_path, capsys):
    assert main(command(server, tmp_path), **FAST) == 2
    assert "plan.json: HTTP Error 404" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2/frame", "2/frames/train", "2/frame/../x", "x/video/test", ""])
def test_wrong_partitions(text):
    with pytest.raises(ConfigError, match="--partition must be VERSION/LEVEL/SPLIT"):
        Partition.parse(text)


@pytest.mark.parametrize("text", ["0,1", "2,1", "1", "a,b", "-1,3", "1,2,3", ""])
def test_wrong_shards(text):
    with pytest.raises(ConfigError, match="--shard must be X,Y"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--base_url=file:///etc", "--base_url must begin with http"),
        ("--plan_url=plan.json", "--plan_url must begin with http"),
        ("--num_workers=0", "--num_workers must be 1 to 64"),
        ("--shard=3,2", "--shard must be X,Y"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, argument, message):
    assert main(["--partition=2/frame/train", f"--output_dir={tmp_path}", argument]) == 2
    assert message in capsys.readouterr().err


def test_the_official_addresses():
    partition = Partition.parse("3/video/validate")
    assert partition.plan_url == "http://data.yt8m.org/3/download_plans/video_validate.json"
    assert partition.base_url("asia") == "http://asia.data.yt8m.org/3/video/validate"


def test_ctrl_c_leaves_what_the_next_call_goes_on_from(server, tmp_path):
    contents = serve_plan(server, num_files=2)
    name, content = "train01.tfrecord", contents["train01.tfrecord"]
    server.faults[f"/d/{name}"] = ["stall"]
    code = (
        "import sys; from yt8m_gat.commands.download import main; "
        "sys.exit(main(sys.argv[1:], timeout=1.0))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command(server, tmp_path)], stderr=subprocess.PIPE
    )
    part, deadline = tmp_path / f"{name}.part", time.monotonic() + 20
    while not (part.is_file() and part.stat().st_size == STALL_AT and len(server.log) > 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"interrupted; the same command goes on from here" in stderr
    assert b"Traceback" not in stderr

    assert part.read_bytes() == content[:STALL_AT]
    assert main(command(server, tmp_path), **FAST) == 0
    assert contents_of(tmp_path) == contents
    # The other file may have been interrupted too.
    assert (f"/d/{name}", f"bytes={STALL_AT}-") in server.log
