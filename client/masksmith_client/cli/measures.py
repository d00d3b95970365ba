"""Measures of masks as a table: what they fill, what they take, what changed."""

from __future__ import annotations

from collections.abc import Sequence

from masksmith_wire.documents import SpectrumReport, TensorReport

from .console import percent, show_table

FORMATS = {"bitmask": "bitmask", "csr": "csr", "bsr": "bsr", "two_four": "2:4"}


def show_measures(tensors: Sequence[TensorReport]) -> None:
    """Print a row for every tensor that has a mask; storage as a share of the dense weight."""
    done = [tensor for tensor in tensors if tensor.fill is not None]
    changed, spectra = any(tensor.change for tensor in done), any(tensor.spectrum for tensor in done)
    columns = ["tensor", "fill", *FORMATS.values(), "mask bits"]
    columns += ["SAD", "flips"] * changed + ["singular values"] * spectra
    print()
    show_table(columns, [_row(tensor, changed, spectra) for tensor in done])


def _row(tensor: TensorReport, changed: bool, spectra: bool) -> list[str]:
    storage, diversity, change = tensor.storage_bytes or {}, tensor.diversity, tensor.change
    dense = storage.get("dense") or 1
    shares = [None if (size := storage.get(name)) is None else size / dense for name in FORMATS]
    row = [tensor.name, percent(tensor.fill), *map(percent, shares)]
    row.append("-" if diversity is None else f"{diversity.bits_per_weight:.3f}")
    if changed:
        row += ["-", "-"] if change is None else [str(change.sad), percent(change.flip_rate)]
    return row + [_span(tensor.spectrum)] * spectra


def _span(spectrum: SpectrumReport | None) -> str:
    return "-" if spectrum is None else f"{spectrum.least:.3g} .. {spectrum.mean:.3g} .. {spectrum.most:.3g}"
