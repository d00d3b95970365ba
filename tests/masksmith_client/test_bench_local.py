"""`masksmith bench --local`: the command as somebody types it."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith.benchmark import Report
from masksmith_client.cli.app import run

pytestmark = pytest.mark.torch  # the kernels of other libraries are those of torch
QUICK = ["--local", "--rounds", "2", "--no-curves"]


def test_tables_words_and_files(tmp_path, capsys):
    files = [tmp_path / f"report{suffix}" for suffix in (".json", ".csv", ".md", ".png")]
    outputs = [word for file in files for word in ("-o", str(file))]
    asked = ["--shapes", "64x64*6, 128x64", "--patterns", "2:4, block 16x16 50%", "--batch", "1,16"]
    assert run(["bench", *asked, "--local", "--rounds", "2", *outputs]) == 0
    shown = capsys.readouterr().out
    for words in ("over the whole model", "Layer by layer", "Break-even density", "64x64 (x6)", "nm-gather", "bsr"):
        assert words in shown
    assert shown.count("2:4, batch 16, float32, forward: ") == 1
    report = Report.read(json.loads(files[0].read_text()))
    assert {(one.layer.shape, one.kernel) for one in report.break_evens} >= {("128x64", "csr"), ("64x64", "nm-gather")}
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert len(rows) == sum(len(result.measurements) for result in report.results)
    assert "# Speed-up of masks" in files[2].read_text()
    assert files[3].read_bytes().startswith(b"\x89PNG")


def test_json_and_nothing_else(capsys):
    assert run(["bench", "--shapes", "16x32", "-p", "2:4", "-b", "2", "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["conclusions"]
    assert [one["case"]["pattern"] for one in document["results"]] == ["2:4"]
    assert document["machines"][0]["threads"] == 1


def test_a_checkpoint_gives_shapes(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    weight = np.zeros((32, 64), np.float32)
    tensors = {"a.weight": weight, "b.weight": weight, "c.weight": np.zeros((64, 64), np.float32)}
    save_file(tensors | {"a.bias": np.zeros(32, np.float32), "embedding": np.zeros((8, 4), np.float32)}, path)
    asked = ["--model", str(path), "--exclude", "embedding", "-p", "2:4", "-b", "1", "--json", *QUICK]
    assert run(["bench", *asked]) == 0
    layers = [one["case"]["layer"] for one in json.loads(capsys.readouterr().out)["results"]]
    assert [(one["name"], one["rows"], one["count"]) for one in layers] == [("a.weight", 32, 2), ("c.weight", 64, 1)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--shapes", "384", "-p", "2:4"], "'384' is not a shape"),
        (["--model", "nope", "-p", "2:4"], "name a model (MiniLM, "),
        (["-p", "2:4"], "nothing to measure"),
        (["--shapes", "8x8", "--model", "MiniLM", "-p", "2:4"], "contradict each other"),
        (["--shapes", "8x8"], "patterns: give at least one"),
        (["--shapes", "8x8", "-p", "2:5"], "tiles of 1x5 do not cover"),
        (["--shapes", "8x8", "-p", "2:4", "--kernels", "magic"], "there is no kernel 'magic'"),
        (["--shapes", "8x8", "-p", "2:4", "--kernels", "csr", "--dtypes", "bfloat16"], "it has no bfloat16 on cpu"),
        (["--shapes", "8x8", "-p", "2:4", "--batch", "x"], "--batch: 'x'"),
        (["--shapes", "8x8", "-p", "2:4", "--batch", "1" * 5000], "is not a whole number of at most 18 digits"),
        (["--shapes", "8x8", "-p", "2:4", "--dtypes", "int8"], "--dtypes='int8': input should be 'float32'"),
        (["--shapes", "8x8", "-p", "2:4", "--device", "tpu"], "--device='tpu': input should be 'cpu' or 'cuda'"),
        (["--shapes", "8x8", "-p", "2:4", "-o", "report.doc"], "the suffix selects the format"),
        (["--masks-of", "123"], "--masks-of needs a service"),
        (["--masks-of", "123", "--layers", "a"], "is not for the masks of a job; omit it"),
        (["--shapes", "8x8", "-p", "2:4", "--layers", "a"], "layers=['a'] selects weights of a checkpoint by name"),
        (["--model", "MiniLM", "-p", "2:4", "--exclude", "a"], "is not for the model MiniLM; omit it"),
        (["--shapes", "8x8", "-p", "2:4", "--name", "a"], "--name is for the job of a service"),
        (["--shapes", "8x8", "-p", "2:4", "--timeout", "0"], "--timeout is for the job of a service"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(asked, words, capsys):
    assert run(["bench", *asked, *QUICK]) == 2
    found = capsys.readouterr()
    assert words in found.err
    assert found.err.count("\n") == 1
    assert not found.out


def test_the_number_of_a_device_is_refused_without_local(capsys):
    assert run(["bench", "--shapes", "8x8", "-p", "2:4", "--device", "cuda:1"]) == 2
    assert "--device='cuda:1': input should be 'cpu' or 'cuda'" in capsys.readouterr().err
