"""The HTML of a job in a notebook: its state and progress, a row for each tensor, and totals."""

from __future__ import annotations

from html import escape

from masksmith_wire.documents import Job, TensorReport
from masksmith_wire.quantities import count_text, duration_text
from masksmith_wire.totals import total

COLUMNS = ("tensor", "status", "shape", "kept", "retained", "gap", "time")


def job_html(job: Job) -> str:
    """Return a job as HTML without scripts, styles or URLs; there are totals only if a tensor has a mask."""
    progress = job.progress
    done_text, total_text = count_text(progress.done), count_text(progress.total)
    units = "shards" if job.kind == "masks" else "cases"
    caption = f"{job.name or 'job'} ({job.id}): {job.state.value}, {done_text} of {total_text} {units}"
    # HTML requires that `max` is positive.
    bar = f"<progress value='{progress.done}' max='{max(1, progress.total)}'></progress>"
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    totals = total(job.tensors)
    rows = [_cells(report) for report in job.tensors]
    if totals.solved_count:
        numbers = _number_texts(totals.density, totals.retained, totals.gap, totals.solve_s)
        rows.append([f"total of {count_text(totals.solved_count)} mask(s)", "", "", *numbers])
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<p>{escape(caption)} {bar}</p><table><tr>{head}</tr>{body}</table>"


def _cells(report: TensorReport) -> list[str]:
    """Return the cells of a tensor's row, one for each of `COLUMNS`."""
    shape = " x ".join(map(str, report.shape))
    if report.error is not None:
        return [report.name, f"{report.error.code}: {report.error.message}", shape, "", "", "", ""]
    numbers = _number_texts(report.density, report.retained, report.gap, report.solve_s)
    return [report.name, report.status or report.state.value, shape, *numbers]


def _number_texts(*values: float | None) -> list[str]:
    """Format density, retained score, gap and seconds; a value that is None becomes an empty text."""
    formats = ("{:.2%}".format, "{:.2%}".format, "{:.3g}".format, duration_text)
    return ["" if value is None else to_text(value) for value, to_text in zip(values, formats, strict=True)]
