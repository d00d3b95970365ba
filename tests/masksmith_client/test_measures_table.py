"""The table of measures has a column for hybrid storage where a tensor has it, and only there."""

import numpy as np
import pytest

import masksmith as ms
from masksmith_client.cli.report import show_measures
from masksmith_wire.documents import TensorReport


def report(name, pattern):
    found = ms.report(ms.solve(np.arange(64.0).reshape(8, 8), pattern))
    return TensorReport(
        name=name, shape=[8, 8], state="succeeded", fill=found.fill, storage_bytes=dict(found.storage_bytes)
    )


def test_hybrid_storage_has_a_column_where_there_is_any(capsys: pytest.CaptureFixture[str]) -> None:
    show_measures([report("plain", "2:4")])
    assert "hybrid" not in capsys.readouterr().out
    show_measures([report("plain", "2:4"), report("mixed", "hybrid 4x4 2:4 50%")])
    head, plain, mixed = (line for line in capsys.readouterr().out.splitlines() if line.strip())
    column = head.index("hybrid")
    # 32 values whole, 16 of the others with 2 bits each, 4 block indices, a byte of flags; of 64 values of 2 bytes.
    assert mixed[column : column + 7].strip() == f"{(2 * 48 + 4 + 16 + 1) / 128:.2%}"
    assert plain[column : column + 6].strip() == "-"
