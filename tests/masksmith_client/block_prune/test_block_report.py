"""The report of blocks: JSON with what the library reports, and a page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.language_models import prune_command, save_llama, write_text

from masksmith.model_pruning import Options, descent
from masksmith_client.checkpoints.calibration_text import CalibrationText
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.cli.app import run
from masksmith_client.cli.block_prune.charts import bar_chart, line_chart
from masksmith_client.cli.block_prune.report_files import page

WEIGHT = {
    "name": "model.layers.0.<b>.weight", "pattern": "2:4", "tokens": [640], "masked_error": 2.0, "error": 1.0,
    "energy": 100.0, "proof": {"status": "optimal", "retained": 0.75}, "without_data": {},
}  # fmt: skip


class Texts(HTMLParser):
    """Collects tags, attributes and texts."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def document(count, **changes):
    blocks = [
        {"name": f"model.layers.{number}", "weights": [WEIGHT], "error_before": 0.01 * number,
         "error_after": 0.02 + 0.01 * number, "seconds": 1.5, "tuning": None, "measured_tokens": 4_608}
        for number in range(count)
    ]  # fmt: skip
    return {
        "block_list": "40 blocks <x>", "count": 40, "scores": "wanda", "update": None, "blocks": blocks,
        "calibration_text": {"blake3": "ab" * 32, "windows": 10, "tokens": 64},
        "options": {"order": "together", "tune_steps": 0}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_the_page_shows_every_block_and_needs_no_network(count):
    content = page(document(count))
    parsed = Texts(content)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert not re.search(r"https?:|url\(|@import|src=", content)
    assert parsed.tags.count("circle") == 2 * count
    assert parsed.tags.count("tr") == 2 + 2 * count
    assert f"{count} of 40 blocks finished in {1.5 * count:g} s" in content
    assert ("errors measured on 4,608 tokens" in content) == (count > 0)
    assert "<b>" not in content
    for number in range(count):
        assert f"model.layers.{number}" in parsed.texts
    assert "nan" not in content.lower().replace("finance", "")


def heights(chart):
    return [float(y) for y in re.findall(r'<circle class="\w+" cx="[\d.]+" cy="([\d.]+)"', chart)]


def test_points_lie_where_their_values_are():
    zero, half, whole = heights(line_chart(["a", "b", "c"], {"before": [0.0, 0.5, 1.0]}))
    assert zero > half > whole
    assert zero - half == pytest.approx(half - whole, abs=0.2)
    assert len(heights(line_chart(["a"], {"before": [0.0]}))) == 1
    first, second = (float(x) for x in re.findall(r'height="([\d.]+)"', bar_chart(["a", "b"], [1.0, 0.5])))
    assert first == pytest.approx(2 * second, abs=0.2)


def test_matrices_without_data_are_listed():
    weight = WEIGHT | {"without_data": {"experts[3]": "it got 2 token(s)"}, "tokens": [640, 2]}
    blocks = document(1)["blocks"]
    content = page(document(1, blocks=[blocks[0] | {"weights": [weight]}]))
    assert "experts[3]: it got 2 token(s)" in content
    assert "2 to 640" in content


def test_blocks_that_could_not_be_tuned_are_named_at_the_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(descent, "_gradients", stopped)
    model, text = save_llama(tmp_path / "model"), write_text(tmp_path / "text.txt")
    assert run(prune_command(model, tmp_path / "out", text, "--update", "reconstruct")) == 0
    printed = capsys.readouterr().err
    for number in range(2):
        outcome = "is not tuned, and keeps its weights from before the tuning: no gradient"
        assert f"model.layers.{number} {outcome}" in printed


def stopped(*arguments):
    raise descent.StoppedError("no gradient")


def test_a_block_that_could_not_be_tuned_says_why():
    tuning = {"steps": 128, "error_before": 0.02, "error_after": 0.02, "seconds": 1.0, "stopped": "no gradient <x>"}
    blocks = [block | {"tuning": tuning} for block in document(1)["blocks"]]
    assert "not tuned: no gradient &lt;x&gt;" in page(document(1, blocks=blocks))


@pytest.mark.parametrize(("update", "steps"), [(None, 0), ("admm", 128)])
def test_the_default_number_of_steps_is_that_of_the_library(update, steps):
    text = CalibrationText(Path("text.txt"))
    ours = PruneMethod.parse("wanda", update, text=text).blocks.document()
    library = Options(update=update)
    assert ours["tune_steps"] == library.tune_steps_or_default == steps
    assert ours["tune_rate"] == library.tune_rate


def test_a_directory_has_both_reports(tmp_path, capsys):
    model, text = save_llama(tmp_path / "model"), write_text(tmp_path / "text.txt")
    arguments = prune_command(model, tmp_path / "out", text, "--update", "reconstruct", "--order", "sequential",
                              "--tune-steps", "4")  # fmt: skip
    assert run(arguments) == 0
    assert "masksmith-blocks.html" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "masksmith-blocks.json").read_text())
    assert [block["name"] for block in report["blocks"]] == ["model.layers.0", "model.layers.1"]
    assert report["options"] == {
        "order": "sequential", "tune_steps": 4, "tune_rate": 0.02, "min_tokens": 64, "few_tokens": "refuse"
    }  # fmt: skip
    for block in report["blocks"]:
        assert 0 <= block["error_before"] < block["error_after"] < 1
        assert block["error_after"] <= block["tuning"]["error_before"]
        assert len(block["weights"]) == 7
    record = json.loads((tmp_path / "out" / "masksmith.json").read_text())
    assert record["blocks"] == report["options"]
    assert f"{report['blocks'][1]['error_after']:.3%}" in (tmp_path / "out" / "masksmith-blocks.html").read_text()


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-310, 1e-300, 1.0, 1.7e308])
def test_charts_of_extreme_values_can_be_drawn(value):
    assert line_chart(["0", "1"], {"<b>": [value, 0.0]}).count("&lt;b&gt;") == 3
    assert bar_chart(["0"], [value]).startswith("<svg")
