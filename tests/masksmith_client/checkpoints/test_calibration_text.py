"""`prune --calibration-text`: a language model's directory is pruned block by block, as `masksmith.prune` does it."""

import json
import shutil

import pytest
import torch
import transformers
from support.language_models import WORDS, prune_command, save_llama, write_text

import masksmith as ms
from masksmith_client._errors import InputError
from masksmith_client.checkpoints.calibration_text import CalibrationText
from masksmith_client.cli.app import run
from masksmith_client.cli.block_prune.calibration_batches import BATCH_WINDOWS


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("model") / "llama")


def pruned_in_memory(model, text, **options):
    """The same by the library: ten windows of 64 words, in the same batches."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([WORDS.index(word) for word in text.read_text().split()[:640]]).reshape(10, 64)
    ms.prune(loaded, [{"input_ids": part} for part in ids.split(BATCH_WINDOWS)], "2:4", **options)
    return loaded


@pytest.mark.parametrize("update", [None, "reconstruct", "admm max_rounds=3"])
def test_the_directory_holds_what_the_library_gives(model, text, tmp_path, update):
    options = [] if update is None else ["--update", update]
    assert run(prune_command(model, tmp_path / "out", text, *options)) == 0
    library = {"update": None} if update is None else {"update": update.split()[0]}
    if update is not None and "max_rounds" in update:
        library["update_options"] = {"max_rounds": 3}
    expected = pruned_in_memory(model, text, scores="wanda", **library)
    result = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    for name, parameter in expected.named_parameters():
        assert torch.equal(result.get_parameter(name), parameter.to(torch.bfloat16)), name
    record = json.loads((tmp_path / "out" / "masksmith.json").read_text())
    assert (record["scores"], record["totals"]["masked"]) == ("wanda", 14)
    assert record["calibration_text"]["windows"] == 10
    masked = [tensor for tensor in record["tensors"] if tensor["masked"]]
    assert all(tensor["gap"] <= 1e-9 and tensor["status"] == "optimal" for tensor in masked)
    assert all("update" in tensor for tensor in masked) == (update is not None)
    assert run(["verify", str(tmp_path / "out")]) == 0


def test_a_checkpoint_without_tokenizer_is_named(model, text, tmp_path, capsys):
    copied = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    assert run(prune_command(copied, tmp_path / "out", text)) == 2
    assert f"the tokenizer of {copied} cannot be loaded" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "content"), [("text.txt", "a b"), ("text.jsonl", '{"text": "a b"}')])
def test_a_byte_order_mark_is_left_out(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert CalibrationText(tmp_path / name).read() == "a b"


def test_json_lines_are_joined(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "a b"}\n\n{"text": "c", "id": 1}\n')
    assert CalibrationText(path).read() == "a b\n\nc"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.txt", b"a \xff", "is not UTF-8 at byte 2"),
        ("text.jsonl", b'{"text": "a"}\n{', "text.jsonl:2 is not JSON"),
        pytest.param(
            "text.jsonl",
            b"[" * 100_000,
            "text.jsonl:1 is not JSON: its arrays and objects are nested too deeply",
            id="deep",
        ),
        ("text.jsonl", b'{"prompt": "a"}', "text.jsonl:1 has no member 'text'"),
        ("text.txt", b"w1 w2 w3", "has 3 tokens; 10 windows of 64 need 640"),
    ],
)
def test_bad_texts_are_refused_before_anything_is_written(model, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert run(prune_command(model, tmp_path / "out", tmp_path / name)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scores", "taylor"], "do not go with a calibration text"),
        (["--calibration", "statistics.safetensors"], "exclude each other"),
    ],
)
def test_options_that_do_not_go_with_a_text(model, text, tmp_path, capsys, options, message):
    assert run(prune_command(model, tmp_path / "out", text, *options)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_text_needs_local(model, text, tmp_path, capsys):
    command = [word for word in prune_command(model, tmp_path / "out", text) if word != "--local"]
    assert run(command) == 2
    assert "--calibration-text needs --local" in capsys.readouterr().err


def test_a_file_that_is_no_text_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        CalibrationText(tmp_path / "missing.txt").read()


def test_a_json_line_ends_at_a_line_feed_only(tmp_path):
    """Line separators of Unicode may stand in a JSON string as they are."""
    path, texts = tmp_path / "text.jsonl", ["one\u2028two", "three\x85four"]
    path.write_bytes("\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts).encode())
    assert CalibrationText(path).read() == "\n\n".join(texts)
