"""Commands that are compared take turns in being the first of a round, each after a rest."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def log(monkeypatch):
    """What is run, by the last word of a command, with the rests in between."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    entries = []
    monkeypatch.setattr("time.sleep", lambda seconds: entries.append("rest"))
    monkeypatch.setattr("shutil.rmtree", lambda folder, ignore_errors=False: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: None)
    return entries


def test_copying_and_pruning_take_turns(log, monkeypatch, tmp_path):
    import checkpoint

    monkeypatch.setattr(checkpoint, "solve_seconds", lambda model, pattern: 1.0)
    monkeypatch.setattr(checkpoint, "timed", lambda command: (log.append(Path(command[0]).name), (2.0, 3.0))[1])
    row = checkpoint.measure(tmp_path / "model", "2:4", 3)
    assert log == [
        "rest",
        "cp",
        "rest",
        "masksmith",
        "rest",
        "masksmith",
        "rest",
        "cp",
        "rest",
        "cp",
        "rest",
        "masksmith",
    ]
    assert row == ["2:4", "2.0", "1.0", "2.0", "0.67", "3"]


def test_pruning_by_reference_and_locally_take_turns(log, monkeypatch, tmp_path):
    import by_reference

    seconds = {"local": 4.0, "referred": 2.0}
    monkeypatch.setattr(
        by_reference, "timed", lambda command: (log.append(name := Path(command[-1]).name), (seconds[name], 0.0))[1]
    )
    assert by_reference.measure(tmp_path, "url", "2:4", 2) == (2.0, 4.0)
    assert log == ["rest", "referred", "rest", "local", "rest", "local", "rest", "referred"]


def test_a_round_is_the_reverse_of_the_one_before(log):
    from measuring import alternating

    assert [alternating(("a", "b"), number) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]
