"""How a job looks in a notebook: its state, and a row for each tensor."""

from __future__ import annotations

from html import escape

from masksmith_wire.documents import Job, TensorReport

HEADS = ("tensor", "status", "shape", "kept", "retained", "gap", "time")


def job_html(job: Job) -> str:
    """Give state, progress and reports as HTML without scripts, styles or addresses of its own."""
    progress = job.progress
    caption = f"job {job.id}: {job.state.value}, {progress.done} of {progress.total} shards"
    bar = f"<progress value='{progress.done}' max='{max(1, progress.total)}'></progress>"
    head = "".join(f"<th>{name}</th>" for name in HEADS)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(report))}</tr>" for report in job.tensors
    )
    return f"<p>{escape(caption)} {bar}</p><table><tr>{head}</tr>{body}</table>"


def _cells(report: TensorReport) -> list[str]:
    shape = " x ".join(map(str, report.shape))
    if report.error is not None:
        return [report.name, f"{report.error.code}: {report.error.message}", shape, "", "", "", ""]
    numbers = [
        "" if value is None else form.format(value)
        for value, form in (
            (report.density, "{:.2%}"),
            (report.retained, "{:.2%}"),
            (report.gap, "{:.3g}"),
            (report.solve_s, "{:.2f} s"),
        )
    ]
    return [report.name, report.status or report.state.value, shape, *numbers]
