"""Pictures in, tags out: the client of the documentation, over a server that speaks REST."""

import sys
from pathlib import Path

import pytest
from model_server import ModelServer
from test_serving import NAME, ROOT, load_client

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import test_export_of_images as images

import yt8m_gat


@pytest.mark.slow
@pytest.mark.parametrize("names", [("rgb",), ("rgb", "audio")], ids="+".join)
def test_the_client_of_images_works(tmp_path, capsys, names):
    jpegs = images.write_video(tmp_path / "video.avi", 5, seed=5)
    run, config = images.make_run(tmp_path / "run", names)
    images.exported(run, config, tmp_path / NAME)
    files = [tmp_path / f"{number}.jpg" for number in range(len(jpegs))]
    for file, jpeg in zip(files, jpegs, strict=True):
        file.write_bytes(jpeg)
    client = load_client("images_client")
    command = client.__doc__.splitlines()[2]
    page = (ROOT / "docs" / "SERVING.md").read_text(encoding="utf-8")
    assert f"    {command}\n" in page
    silent = ["--silent"] if "audio" in names else []
    with ModelServer(tmp_path / NAME) as server:
        address = [f"--server={server.rest_address}", f"--model={NAME}"]
        client.main([*address, *silent, *map(str, files)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    extractor = images.Extractor.load(run.extractor)
    made = extractor.graph(names)([jpegs], [[0.0]])[0]
    features = {name: [x.numpy()[0]] for name, x in made.items()}
    expected = yt8m_gat.load_run(run.path).predict(features)
    assert [int(label) for label, _ in lines] == list(expected.label)
    for (_, probability), of_class in zip(lines, expected.probability, strict=True):
        assert float(probability) == pytest.approx(of_class, abs=6e-5)
