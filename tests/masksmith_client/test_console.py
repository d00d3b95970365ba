"""Tables of the command line at the widths of terminals."""

from typing import Any

import pytest

from masksmith_client.cli.console import MIN_NAME_WIDTH, elide, show_table

NAME = "model.transformer.encoder.layers.11.self_attention.output_projection.dense.weight"
ROW = (NAME, "optimal", "18x32", "50.00%", "74.15%", "0", "10 ms")
COLUMNS = ("tensor", "status", "shape", "kept", "retained", "gap", "time")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_long_names_lose_their_middle(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("masksmith_client.cli.console.PIPE_WIDTH", width)
    show_table(COLUMNS, [ROW, ("b", *ROW[1:])], left_aligned=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3, "no name is wrapped"
    assert all(len(line.rstrip()) <= width for line in lines)
    shown = lines[1].split()[0]
    if width == 200:
        assert shown == NAME
    else:
        start, end = shown.split("...")
        assert NAME.startswith(start)
        assert NAME.endswith(end)
        assert len(shown) >= MIN_NAME_WIDTH


def test_elide_keeps_what_fits() -> None:
    assert elide("abc", 3) == "abc"
    assert elide("a" * 30 + "b" * 30, 10) == "aaa...bbbb"


def test_names_are_shown_as_they_are(capsys: Any) -> None:
    """Rich replaces the names of emojis, markup and numbers in texts, unless this is switched off."""
    show_table(("tensor", "shape"), [("attn:key:weight", "8x8"), ("[bold]a[/bold]", ":fire:")])
    assert "attn:key:weight" in (text := capsys.readouterr().out)
    assert "[bold]a[/bold]   :fire:" in text
