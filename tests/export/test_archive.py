"""Archives: written and read back; everything that is not ours refused, and nothing left behind."""

import contextlib
import gzip
import io
import json
import os
import random
import tarfile
import zlib

import pytest

from yt8m_gat.commands import archive as command
from yt8m_gat.config import ConfigError, DataConfig, RunConfig
from yt8m_gat.data import LabelMap
from yt8m_gat.export import ArchiveError, archive, read_archive, write_archive
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.files import stored_architecture

WEIGHTS = bytes(range(256)) * 40


def make_run(path, label_map=None):
    """A finished run, but for the weights: an archive does not look inside."""
    data = {}
    if label_map is not None:
        data = {"num_source_classes": 9, "label_map": label_map.fingerprint, "num_classes": 2}
        label_map.save(path.parent / "map.csv")
    folder = RunFolder(path)
    map_path = None if label_map is None else path.parent / "map.csv"
    folder.prepare(RunConfig(data=DataConfig(**data)), label_map=map_path)
    folder.best_weights.write_bytes(WEIGHTS)
    folder.checkpoints.mkdir()
    folder.append_metrics({"kind": "start", "step": 0})
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def tgz(run, tmp_path):
    write_archive(run, tmp_path / "model.tgz")
    return tmp_path / "model.tgz"


def members_of(path):
    with tarfile.open(path) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened.getmembers()}


def write_tgz(path, *members):
    """Members: (name, content), or a tarfile.TarInfo, or one with its content."""
    with tarfile.open(path, "w:gz") as opened:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                opened.addfile(member)
                continue
            name, content = member
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def of_type(name, kind, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def assert_refused(path, target, message, error=ArchiveError, **options):
    parent = target.parent
    before = {p: p.read_bytes() for p in parent.rglob("*") if p.is_file()}
    with pytest.raises(error, match=message) as raised:
        read_archive(path, target, **options)
    assert {p: p.read_bytes() for p in parent.rglob("*") if p.is_file()} == before
    assert not target.exists()
    assert not list(parent.glob(".*"))
    return raised


def test_read_back_it_is_the_run(run, tgz, tmp_path):
    folder = read_archive(tgz, tmp_path / "new" / "model")
    assert folder.path == tmp_path / "new" / "model"
    assert RunConfig.load(folder.path) == RunConfig.load(run.path)
    assert folder.best_weights.read_bytes() == WEIGHTS
    assert (folder.path / "versions.json").read_bytes() == (run.path / "versions.json").read_bytes()
    assert sorted(os.listdir(folder.path)) == [
        "best.weights.h5",
        "config.json",
        "format.json",
        "versions.json",
    ]
    assert folder.path.stat().st_mode & 0o777 == 0o755


def test_the_command_packs_unpacks_and_refuses_in_one_line(run, tmp_path, capsys):
    tgz, copy = tmp_path / "of_the_command.tgz", tmp_path / "copy"
    command.main(["pack", f"--train_dir={run.path}", f"--output_file={tgz}"])
    command.main(["unpack", f"--input_file={tgz}", f"--output_dir={copy}"])
    assert (copy / "best.weights.h5").read_bytes() == WEIGHTS
    assert RunConfig.load(copy) == RunConfig.load(run.path)
    assert capsys.readouterr().out.splitlines() == [
        f"{tgz}: the best model of {run.path}",
        f"{copy}: the model of {tgz}",
    ]
    tgz.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="2"):
        command.main(["unpack", f"--input_file={tgz}", f"--output_dir={tmp_path / 'other'}"])
    [line] = capsys.readouterr().err.splitlines()
    assert "error:" in line and str(tgz) in line


def test_the_label_map_goes_along(tmp_path):
    label_map = LabelMap(((0, 0), (8, 1)), 9, ("a", "b"))
    write_archive(make_run(tmp_path / "run", label_map), tmp_path / "model.tgz")
    folder = read_archive(tmp_path / "model.tgz", tmp_path / "model")
    assert LabelMap.load(folder.label_map) == label_map


def test_the_extractor_goes_along(run, tgz, tmp_path):
    files = {"extractor.json": b"{}", "picture.npz": b"\x00\x01"}
    run.prepare(RunConfig.load(run.path), extractor=files)
    (run.extractor / ".extractor.json.unfinished").write_bytes(b"{")
    write_archive(run, tmp_path / "with.tgz")
    members = members_of(tmp_path / "with.tgz")
    assert json.loads(members["format.json"])["version"] == 2
    assert json.loads(members_of(tgz)["format.json"])["version"] == 1
    for _ in range(2):  # The second time it replaces the first.
        folder = read_archive(tmp_path / "with.tgz", tmp_path / "model")
        assert {p.name: p.read_bytes() for p in folder.extractor.iterdir()} == files
    assert not read_archive(tgz, tmp_path / "model").extractor.exists()


def test_the_architecture_of_a_backbone_goes_along(run, tmp_path):
    run.prepare(RunConfig.load(run.path), backbone_architecture="{}")
    write_archive(run, tmp_path / "with.tgz")
    assert json.loads(members_of(tmp_path / "with.tgz")["format.json"])["version"] == 3
    folder = read_archive(tmp_path / "with.tgz", tmp_path / "model")
    assert stored_architecture(folder.path) == "{}"


def test_an_extractor_has_few_files(tgz, tmp_path):
    files = [(f"extractor/{number}", b"") for number in range(9)]
    path = write_tgz(tmp_path / "many.tgz", *members_of(tgz).items(), *files)
    assert_refused(path, tmp_path / "model", "at most 8 files of an extractor. Received: 'extr")
    path = write_tgz(tmp_path / "twice.tgz", *members_of(tgz).items(), files[0], files[0])
    assert_refused(path, tmp_path / "model", r"each once, .* Received: 'extractor/0'")


def test_an_unpacked_archive_can_be_packed_again(run, tgz, tmp_path):
    write_archive(read_archive(tgz, tmp_path / "model"), tmp_path / "again.tgz")
    assert (tmp_path / "again.tgz").read_bytes() == tgz.read_bytes()
    assert list(members_of(tgz)) == [
        "format.json",
        "config.json",
        "best.weights.h5",
        "versions.json",
    ]


def test_config_and_weights_are_of_one_run(run, tmp_path, monkeypatch):
    """train.py --start_new_model begins, and validates, while the run is packed."""
    other = RunConfig(data=DataConfig(num_classes=7))

    def begin_anew_and_open(path, mode):
        if os.fspath(path) == os.fspath(run.best_weights) and RunConfig.load(run.path) != other:
            run.prepare(other, start_new_model=True)
            run.best_weights.write_bytes(b"other")
        return open(path, mode)

    monkeypatch.setattr(archive, "open", begin_anew_and_open, raising=False)
    write_archive(run, tmp_path / "model.tgz")
    members = members_of(tmp_path / "model.tgz")
    assert RunConfig.from_json(members["config.json"].decode()) == other
    assert members["best.weights.h5"] == b"other"


def test_versions_are_optional(run, tmp_path):
    (run.path / "versions.json").unlink()
    write_archive(run, tmp_path / "model.tgz")
    assert read_archive(tmp_path / "model.tgz", tmp_path / "model").best_weights.is_file()


def test_a_run_without_best_weights_has_no_archive(run, tmp_path):
    run.best_weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"best\.weights\.h5 is missing"):
        write_archive(run, tmp_path / "model.tgz")
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_run_without_its_label_map_has_no_archive(tmp_path):
    folder = make_run(tmp_path / "run", LabelMap(((0, 0), (8, 1)), 9, ("a", "b")))
    folder.label_map.unlink()
    with pytest.raises(FileNotFoundError, match=r"label_map\.csv is missing"):
        write_archive(folder, tmp_path / "model.tgz")


def test_what_is_no_run_has_no_archive(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        write_archive(RunFolder(tmp_path), tmp_path / "model.tgz")


def test_an_empty_folder_and_an_earlier_archives_are_unpacked_to(tgz, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    read_archive(tgz, target)
    (target / "best.weights.h5").write_bytes(b"older")
    read_archive(tgz, target)
    assert (target / "best.weights.h5").read_bytes() == WEIGHTS


@pytest.mark.parametrize("kind", ["run", "others", "file"])
def test_folders_with_other_files_are_left_alone(run, tgz, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "run":
        target = run.path
    elif kind == "others":
        read_archive(tgz, target)
        (target / "notes.txt").write_text("mine")
    else:
        target.write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="must be a new or empty folder"):
        read_archive(tgz, target)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../evil", b"x"), r"members must be format\.json, .* Received: '\.\./evil'"),
        (("/tmp/evil", b"x"), r"members must be .* Received: '/tmp/evil'"),
        (("sub/config.json", b"x"), r"members must be .* Received: 'sub/config.json'"),
        (("evil.py", b"x"), r"members must be .* Received: 'evil.py'"),
        (("label_map.csv/../../evil", b"x"), r"members must be .* Received: 'label_map.csv/"),
        (("extractor/../evil", b"x"), r"members must be .* Received: 'extractor/\.\./evil'"),
        (("extractor/.evil", b"x"), r"members must be .* Received: 'extractor/\.evil'"),
        (("extractor/a/b", b"x"), r"members must be .* Received: 'extractor/a/b'"),
        (of_type("extractor", tarfile.DIRTYPE), "plain files, not links"),
        (of_type("extractor/a", tarfile.SYMTYPE, "/etc/passwd"), "plain files, not links"),
        (("config.json", b"{}"), r"each once, .* Received: 'config.json'"),
        (of_type("label_map.csv", tarfile.SYMTYPE, "/etc/passwd"), "plain files, not links"),
        (of_type("label_map.csv", tarfile.LNKTYPE, "config.json"), "plain files, not links"),
        (of_type("label_map.csv", tarfile.CHRTYPE), "plain files, not links"),
        (of_type("label_map.csv", tarfile.FIFOTYPE), "plain files, not links"),
        (of_type("label_map.csv", tarfile.DIRTYPE), "plain files, not links"),
        ((of_type("label_map.csv", tarfile.CONTTYPE), b"x"), "plain files, not links"),
        ((of_type("label_map.csv", b"Z"), b"x"), "plain files, not links"),
    ],
)
def test_unsafe_members_are_refused(tgz, tmp_path, member, message):
    path = write_tgz(tmp_path / "evil.tgz", *members_of(tgz).items(), member)
    assert_refused(path, tmp_path / "model", message)


@pytest.mark.parametrize(
    "first",
    [
        ("model_flags.json", b"{}"),
        of_type(".", tarfile.DIRTYPE),
        ("format.json", b"{"),
        ("format.json", b"[]"),
        ("format.json", b"{}"),
        ("format.json", b'{"format": "yt8m_gat model", "version": "1"}'),
        ("format.json", b'{"format": "yt8m_gat model", "version": true}'),
        ("format.json", b'{"format": "another model", "version": 1}'),
        ("format.json", b"\xff\xfe"),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path, first):
    path = write_tgz(tmp_path / "other.tgz", first)
    assert_refused(path, tmp_path / "model", r"other\.tgz is no model archive of yt8m_gat")


def test_a_newer_version_is_refused(tgz, tmp_path):
    members = members_of(tgz)
    members["format.json"] = b'{"format": "yt8m_gat model", "version": 5}'
    path = write_tgz(tmp_path / "newer.tgz", *members.items())
    assert_refused(path, tmp_path / "model", r"version 1 to 4\. Received: version 5; a newer yt8m")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        b"\x1f\x8b\x08",
        # With the time of day in it, two workers of pytest would collect different tests.
        gzip.compress(b"", mtime=0),
        gzip.compress(b"x" * 2000, mtime=0),
    ],
    ids=["empty", "text", "cut", "nothing", "no tar"],
)
def test_what_is_no_archive_at_all_is_refused(tmp_path, content):
    (tmp_path / "x.tgz").write_bytes(content)
    assert_refused(tmp_path / "x.tgz", tmp_path / "model", r"x\.tgz is ")


def test_an_archive_that_is_not_there(tmp_path):
    assert_refused(tmp_path / "x.tgz", tmp_path / "model", r"x\.tgz", FileNotFoundError)


def test_every_truncation_is_refused(tgz, tmp_path):
    content = tgz.read_bytes()
    for length in [1, 9, 10, 11, *range(12, len(content), 97), len(content) - 1]:
        (tmp_path / "cut.tgz").write_bytes(content[:length])
        assert_refused(tmp_path / "cut.tgz", tmp_path / "model", r"cut\.tgz")


def test_no_flipped_byte_goes_unnoticed(tgz, tmp_path):
    content, path = tgz.read_bytes(), tmp_path / "flipped.tgz"
    num_refused = 0
    for place in random.Random(0).sample(range(10, len(content)), 60):
        flipped = bytearray(content)
        flipped[place] ^= 0x55
        path.write_bytes(flipped)
        # Some flips say the same in other words: where a run of zeros is copied from.
        with contextlib.suppress(OSError, EOFError, zlib.error):
            if gzip.decompress(flipped) == gzip.decompress(content):
                continue
        assert_refused(path, tmp_path / "model", r"flipped\.tgz")
        num_refused += 1
    assert num_refused > 30


def test_archives_that_grow_too_large_are_refused(tgz, tmp_path):
    size = sum(map(len, members_of(tgz).values()))
    assert_refused(tgz, tmp_path / "model", r"must have at most \d+ bytes", max_bytes=size - 1)
    assert read_archive(tgz, tmp_path / "model", max_bytes=size).best_weights.is_file()


def test_text_has_a_limit_of_its_own(tgz, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_TEXT_BYTES", 100)
    assert_refused(tgz, tmp_path / "model", r"config\.json must have at most 100 bytes")


def test_a_size_that_is_a_lie_is_refused_before_it_is_read(tgz, tmp_path):
    info = tarfile.TarInfo("label_map.csv")
    info.size = 1 << 40
    path = tmp_path / "lie.tgz"
    head = write_tgz(tmp_path / "head.tgz", ("format.json", members_of(tgz)["format.json"]))
    content = gzip.decompress(head.read_bytes()).rstrip(b"\0")
    content += b"\0" * (-len(content) % 512)
    path.write_bytes(gzip.compress(content + info.tobuf(tarfile.GNU_FORMAT)))
    assert_refused(path, tmp_path / "model", r"label_map\.csv must have at most 67108864 bytes")


def block(name="label_map.csv", kind=tarfile.REGTYPE, size=0, octal=None):
    """A header block by hand: `tarfile` would not write a negative size."""
    raw = bytearray(512)
    raw[: len(name)] = name.encode()
    raw[100:108] = b"0000644\0"
    if octal is not None:
        raw[124:136] = octal
    elif 0 <= size < 8**11:
        raw[124:136] = b"%011o\0" % size
    else:  # Base 256, as GNU tar writes it.
        raw[124] = 0xFF if size < 0 else 0x80
        raw[125:136] = (size % (1 << 88)).to_bytes(11, "big")
    raw[156:157] = kind
    raw[257:265] = b"ustar\x0000"
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def test_a_header_by_hand_is_a_header(tgz, tmp_path):
    """What the next test changes is then all that is wrong there."""
    content = b"".join(
        block(name, size=len(text)) + text + bytes(-len(text) % 512)
        for name, text in members_of(tgz).items()
    )
    (tmp_path / "hand.tgz").write_bytes(gzip.compress(content))
    assert read_archive(tmp_path / "hand.tgz", tmp_path / "model").best_weights.is_file()


HOSTILE = {
    "long names, chained": block("././@LongLink", tarfile.GNUTYPE_LONGNAME, 512) * 3000,
    "pax headers, chained": (block("p", tarfile.XHDTYPE, 512) + b"6 a=1\n".ljust(512, b"\0")) * 999,
    "a pax length of many digits": block("p", tarfile.XHDTYPE, 5120) + b"9" * 5120,
    "a global header": block("p", tarfile.XGLTYPE, 512) + b"11 size=-99\n".ljust(512, b"\0"),
    "a large header": block("p", tarfile.XHDTYPE, 1 << 30),
    "sparse": block(kind=tarfile.GNUTYPE_SPARSE, size=4),
    "a negative size": block(size=-512),
    "the most negative size": block(size=-(1 << 87)),
    "a size of 2 ** 63": block(size=1 << 63),
    "no number": block(octal=b"0000000000x\0"),
    "a name that is no UTF-8": block("\u00e9").replace("\u00e9".encode(), b"\xff\xfe"),
    "half a header": block()[:300],
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("first", [True, False])
def test_hostile_headers_are_refused(tgz, tmp_path, first, kind):
    text = members_of(tgz)["format.json"]
    head = block("format.json", size=len(text)) + text + bytes(-len(text) % 512)
    path = tmp_path / "hostile.tgz"
    path.write_bytes(gzip.compress((b"" if first else head) + HOSTILE[kind] + bytes(1024)))
    assert_refused(path, tmp_path / "model", r"hostile\.tgz")


def test_nothing_may_follow(tgz, tmp_path):
    (tmp_path / "more.tgz").write_bytes(tgz.read_bytes() + gzip.compress(bytes(3 << 20)))
    assert_refused(tmp_path / "more.tgz", tmp_path / "model", "nothing must follow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("config.json"), r"incomplete: config\.json is missing"),
        (lambda members: members.pop("best.weights.h5"), r"best\.weights\.h5 is missing"),
        (lambda members: members.update({"config.json": b"{"}), r"config\.json does not read"),
        (lambda members: members.update({"config.json": b"\xff"}), r"config\.json does not read"),
        (
            lambda members: members.update(
                {"config.json": json.dumps({"data": {"hue": 1}}).encode()}
            ),
            r"unknown setting data\.hue",
        ),
        (
            lambda members: members.update({"label_map.csv": b"x"}),
            r"label_map\.csv must be there if, and only if",
        ),
    ],
)
def test_an_archive_without_a_whole_run_is_refused(tgz, tmp_path, change, message):
    members = members_of(tgz)
    change(members)
    path = write_tgz(tmp_path / "part.tgz", *members.items())
    assert_refused(path, tmp_path / "model", message)
