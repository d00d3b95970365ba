"""What a notebook shows of a job."""

from datetime import UTC, datetime
from xml.etree import ElementTree

from masksmith_client._job_view import JobView
from masksmith_wire.documents import Job, JobState, Progress, TensorReport
from masksmith_wire.errors import Code, TensorError


def test_a_job_shows_a_row_for_each_tensor_whatever_its_name():
    done = TensorReport(
        name="<b>layer & co</b>", state=JobState.SUCCEEDED, shape=[16, 32], status="optimal", objective=3.0,
        upper_bound=3.0, gap=0.0, retained=0.75, density=0.5, solve_s=0.25,
    )  # fmt: skip
    error = TensorError(code=Code.INVALID_SCORES, message="NaN at [0, 1]")
    bad = TensorReport(name="other", state=JobState.FAILED, shape=[16, 32], error=error)
    document = Job(
        id="abc", state=JobState.FAILED, pattern="2:4", solver="auto", created_at=datetime.now(UTC),
        progress=Progress(done=2, total=2), tensors=[done, bad],
    )  # fmt: skip
    page = ElementTree.fromstring(f"<div>{JobView(document)._repr_html_()}</div>")
    cells = [cell.text or "" for cell in page.iter("td")]
    assert cells[:7] == ["<b>layer & co</b>", "optimal", "16 x 32", "50.00%", "75.00%", "0", "250 ms"]
    assert cells[7:9] == ["other", "invalid_scores: NaN at [0, 1]"]
    assert cells[14:] == ["total of 1 mask(s)", "", "", "50.00%", "75.00%", "0", "250 ms"]
    assert "2 of 2 shards" in (page.find("p").text or "")


def test_a_benchmark_has_cases():
    document = Job(
        id="abc", kind="benchmark", state=JobState.RUNNING, pattern="2:4", solver="", created_at=datetime.now(UTC),
        progress=Progress(done=1, total=3),
    )  # fmt: skip
    assert "1 of 3 cases" in JobView(document)._repr_html_()
