import re
from importlib.resources import files
from urllib.parse import urljoin

import numpy as np
import pytest
from fastapi.testclient import TestClient
from support.leases import take

import masksmith as ms
from masksmith_client._notebook import job_html
from masksmith_client.cli.report import SolveReport
from masksmith_service.app import create_app
from masksmith_service.jobs import listing as job_listing
from masksmith_service.pages import choices, listing, mask_drawings, rendering
from masksmith_service.system.discovery import PATTERNS
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.keys import Keys, Role
from masksmith_wire.documents import Job, WorkerInfo
from masksmith_wire.errors import TensorError

PAGES = files("masksmith_service.pages")
HTML = {"Accept": "text/html,application/xhtml+xml"}
WRITTEN = [choice.text for choice in choices.offered_patterns()] + [pattern.example for pattern in PATTERNS]
MORE = [
    "hybrid 16x16 transposable 2:4 50%",
    "1:4",
    "transposable 16:32",
    "transposable <=1:4",
    "transposable 4:8 x 2:4",
    "<=3:8",
    "transposable 32:64",
]


@pytest.mark.parametrize("text", sorted({*WRITTEN, *MORE}))
def test_a_drawn_mask_satisfies_its_pattern(text):
    drawing = choices.describe_pattern(text).drawing
    mask = np.array(drawing.mask)
    assert mask.any()
    if "block" in text or "hybrid" in text:
        # Drawn with blocks of 4 x 4, whatever their size.
        text = re.sub(r"\d+x\d+", "4x4", text)
    elif text == "64:2:8":
        text = "16:2:8"
    verdict = ms.verify(mask, text)
    assert verdict.ok, verdict
    assert drawing.kept_path.count("M") == mask.sum()


def test_along_out_the_drawing_stands():
    mask = np.array(choices.describe_pattern("1:4", axis="out").drawing.mask)
    assert "row" not in choices.describe_pattern("2:4", axis="out").meaning
    assert ms.verify(mask, ms.NM(1, 4, axis="out")).ok


def test_an_unknown_type_of_pattern_is_not_drawn():
    class Odd:
        axis, ragged, density, shard_rows = "in", "pad", 0.5, None

    assert mask_drawings.draw(Odd()) is None


@pytest.mark.parametrize("path", ["/", "/jobs", "/pattern?pattern=2:4", "/jobs/{job}"])
def test_pages_allow_nothing_from_elsewhere(client, submit, path):
    response = client.get(path.format(job=submit()["id"]), headers=HTML)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_no_file_of_the_pages_breaks_the_policy():
    for folder in ("templates", "static"):
        for file in (PAGES / folder).iterdir():
            text = file.read_text()
            outside = set(re.findall(r"https?://[\w./]+", text)) - {"http://www.w3.org/2000/svg"}
            assert not outside, file.name
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=\"|\sstyle=|javascript:", text), file.name
            assert "innerHTML" not in text
            assert "|safe" not in re.sub(r"\s", "", text)


def test_hostile_names_stay_text(client, save):
    name = "<img src=x onerror=alert(1)>\"'{{7*7}}"
    data = save({name: np.ones((8, 8), np.float32), "<b>bias": np.ones(3, np.float32)})
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=data).json()["id"]
    text = client.get(f"/jobs/{job}", params={"q": '"><script>'}, headers=HTML).text
    assert "<script>" not in text
    text = client.get(f"/jobs/{job}", headers=HTML).text
    assert "<img src=x" not in text
    assert "<b>bias" not in text
    assert "{{7*7}}" in text


def test_people_get_pages_and_programs_get_documents(client):
    page = client.get("/jobs/nope", headers=HTML)
    assert page.status_code == 404
    assert "there is no job" in page.text
    assert "Content-Security-Policy" in page.headers
    assert client.get("/jobs/nope").json()["code"] == "job_not_found"
    assert client.get("/v1/jobs/nope", headers=HTML).json()["code"] == "job_not_found"
    assert client.get("/nowhere", headers=HTML).text.startswith("<!doctype html>")


def test_patterns_are_explained_or_refused(client):
    good = client.get("/pattern", params={"pattern": "transposable  8:16"}).text
    assert "transposable 8:16" in good
    assert "50.00 %" in good
    assert "n counts the kept entries" in client.get("/pattern", params={"pattern": "17:16"}).text
    assert "none of" not in good


def test_jobs_are_found_and_filtered(client, records, good):
    for pattern in ("2:4", "4:8", "transposable 2:4"):
        client.post("/v1/masks", params={"pattern": pattern}, content=good)
    jobs = client.get("/v1/jobs").json()["jobs"]
    records.cancel(jobs[0]["id"])

    def shown(**query):
        text = client.get("/jobs", params=query, headers=HTML).text
        return [job["pattern"] for job in jobs if f'href="./jobs/{job["id"]}"' in text]

    assert shown() == ["transposable 2:4", "4:8", "2:4"]
    assert shown(q="2:4") == ["transposable 2:4", "2:4"]
    assert shown(q="TRANSP") == ["transposable 2:4"]
    assert shown(only="live") == ["4:8", "2:4"]
    assert shown(only="canceled", q="2:4") == ["transposable 2:4"]
    assert shown(q=jobs[1]["id"]) == ["4:8"]
    assert "No such job" in client.get("/jobs", params={"q": "zzz"}, headers=HTML).text


def test_names_and_labels_are_shown_and_stay_text(client, good):
    name = "<script>alert(1)</script>{{7*7}}"
    query = {"pattern": "2:4", "name": name, "label": ["note=<b>&"]}
    job = client.post("/v1/masks", params=query, content=good).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}"
    for path in ("/jobs", f"/jobs/{job}", "/compare"):
        text = client.get(path, headers=HTML).text
        assert escaped in text
        assert "<script>alert" not in text
        assert ("note=&lt;b&gt;&amp;" in text) == (path != "/compare")
    assert f"jobs/{job}" in client.get("/jobs", params={"q": "NOTE=<B>"}, headers=HTML).text
    assert client.get(f"/jobs/{job[:20]}", headers=HTML).status_code == 200


def test_a_search_goes_on_where_it_stopped(records, client, good, monkeypatch):
    for _ in range(5):
        client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    monkeypatch.setattr(job_listing, "BATCH", 2)
    monkeypatch.setattr(job_listing, "SCAN_LIMIT", 4)
    first = job_listing.find_jobs(records, None, job_listing.JobFilter(text="2:4"), None, 3)
    rest = job_listing.find_jobs(records, None, job_listing.JobFilter(text="2:4"), first.next, 3)
    assert [len(first.jobs), len(rest.jobs), rest.next] == [3, 2, None]
    nothing = job_listing.find_jobs(records, None, job_listing.JobFilter(text="zzz"), None, 3)
    assert (nothing.jobs, nothing.next) == ([], client.get("/v1/jobs").json()["jobs"][3]["id"])


def test_the_installation_is_shown(client, records, submit):
    assert "No worker is alive" in client.get("/jobs", headers=HTML).text
    worker = {"name": "anvil", "device": "cpu", "device_name": "x", "slots": 2, "queues": [], "version": "1"}
    records.workers.announce(WorkerInfo(**worker, started_at="2026-01-01T00:00:00Z"))
    submit()
    text = client.get("/jobs", headers=HTML).text
    assert "anvil" in text
    assert re.search(r'<span class="figure">1</span>\s*<span class="muted">shards waiting', text)


def test_keys_see_their_own_on_pages_too(client, records, good):
    keys = Keys(records.redis)
    ann, bob, admin = (
        {"Authorization": f"Bearer {keys.create(name, role)[1]}"}
        for name, role in [("ann", Role.USER), ("bob", Role.USER), ("eve", Role.ADMIN)]
    )
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=ann).json()["id"]
    for headers, sees in [(ann, True), (bob, False), (admin, True)]:
        listed = client.get("/jobs", headers=headers | HTML).text
        assert (f"/jobs/{job}" in listed) == sees
        assert ("No worker is alive" in listed) == (headers is admin)
        for path in (f"/jobs/{job}", f"/jobs/{job}/layer?tensor=layer.weight"):
            assert ("there is no job" in client.get(path, headers=headers | HTML).text) == (not sees)
        for path in ("window", "profile"):
            response = client.get(f"/v1/jobs/{job}/{path}", params={"tensor": "layer.weight"}, headers=headers)
            assert response.json()["code"] == ("result_not_found" if sees else "job_not_found")
    assert client.post(f"/jobs/{job}/cancel", headers=bob).status_code == 404
    assert client.get(f"/v1/jobs/{job}", headers=ann).json()["state"] == "queued"


def test_without_a_key_pages_ask_for_one(client, records):
    Keys(records.redis).create("ann")
    for path in ("/", "/jobs", "/jobs/x"):
        page = client.get(path, headers=HTML)
        assert page.status_code == 401
        assert '<form id="login"' in page.text
    assert client.get("/login", headers=HTML).status_code == 200
    assert client.get("/static/masksmith.css").status_code == 200


def test_a_job_is_canceled_without_a_script(client, submit):
    job = submit()["id"]
    response = client.post(f"/jobs/{job}/cancel", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"../{job}")
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "canceled"


def test_a_layers_error_is_shown_beside_it(client, records, submit):
    job = submit()["id"]
    lease = take(records, job, 0, lease_s=30, attempts=3)
    error = TensorError(code="invalid_scores", message="tensor 'layer.weight': NaN at [3, 4]", index=[3, 4])
    records.complete(lease, ShardReport(error=error))
    text = client.get(f"/jobs/{job}", headers=HTML).text
    assert "NaN at [3, 4]" in text
    assert "<code>invalid_scores</code>" in text
    assert 'badge failed">failed' in text


def test_totals_are_the_same_on_page_terminal_and_notebook(client, records, put, save):
    weights = {name: np.ones((8, 8), np.float32) * size for size, name in enumerate("abc", 1)}
    digest = put(save(weights))
    inputs = [{"name": name, "digest": digest, "key": name} for name in weights]
    job = client.post("/v1/jobs", json={"pattern": "2:4", "tensors": inputs}).json()["id"]
    numbers = {"status": "feasible", "kept": 32, "entries": 64, "solver": "top-k", "device": "cpu"}
    reports = [
        ShardReport(result="0" * 64, objective=6e307, upper_bound=8e307, total_score=1e308, **numbers),
        ShardReport(result="1" * 64, objective=1.2e308, upper_bound=1.6e308, total_score=1.5e308, **numbers),
        ShardReport(error=TensorError(code="invalid_scores", message="NaN")),
    ]
    for index, report in enumerate(reports):
        records.complete(take(records, job, index, lease_s=30, attempts=3), report)
    document = Job.model_validate(client.get(f"/v1/jobs/{job}").json())
    terminal = SolveReport("2:4", "auto", document.tensors, [], None, 0.0)
    assert terminal.document()["total"]["gap"] == pytest.approx(0.25)
    assert terminal.document()["total"]["retained"] == pytest.approx(1.8 / 2.5)
    assert (terminal.document()["total"]["tensors"], terminal.document()["total"]["failed"]) == (2, 1)
    page = client.get(f"/jobs/{job}", headers=HTML).text
    assert '<dt>gap to the bound</dt><dd class="figure">2.5e-01</dd>' in page
    assert '<dt>of the score retained</dt><dd class="figure">72.00 %</dd>' in page
    assert "<td>total of 2 mask(s)</td><td></td><td></td><td>50.00%</td><td>72.00%</td><td>0.25</td>" in job_html(
        document
    )


def job_of(*rows):
    tensors = [
        {"name": name, "state": "succeeded", "shape": [10, size], "status": "optimal", "objective": 0.5 * size,
         "upper_bound": 0.5 * size + gap, "gap": gap, "retained": 0.5, "density": 0.5, "solve_s": size / 10}
        if gap is not None else {"name": name, "state": "queued", "shape": [10, size]}
        for name, size, gap in rows
    ]  # fmt: skip
    return Job.model_validate(
        {"id": "j", "state": "running", "pattern": "2:4", "solver": "auto", "created_at": "2026-01-01T00:00:00Z",
         "progress": {"done": 1, "total": 2}, "tensors": tensors}
    )  # fmt: skip


def test_layers_without_a_value_are_sorted_last():
    job = job_of(("b", 4, 0.2), ("a", 8, None), ("c", 2, 0.1))

    def names(sort, **options):
        return [row.name for row in listing.list_layers(job, "", sort, 1, descending=False, **options).rows]

    assert names("") == ["b", "a", "c"]
    assert names("name") == ["a", "b", "c"]
    assert names("gap") == ["c", "b", "a"]
    assert names("shape") == ["c", "b", "a"]
    assert [row.name for row in listing.list_layers(job, "", "gap", 1, descending=True).rows] == ["b", "c", "a"]
    assert [row.name for row in listing.list_layers(job, "C", "", 1, descending=False).rows] == ["c"]


def test_many_layers_come_in_pages(monkeypatch):
    monkeypatch.setattr(listing, "LAYERS_PER_PAGE", 2)
    job = job_of(*((f"l{number}", 1, 0.0) for number in range(5)))
    last = listing.list_layers(job, "", "", 9, descending=False)
    assert (last.page, last.pages, last.total, [row.name for row in last.rows]) == (3, 3, 5, ["l4"])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rendering.share(0.76904), "76.90 %"), (rendering.share(None), "\N{EN DASH}"), (rendering.gap(0.0), "0"),
        (rendering.gap(3e-12), "3.0e-12"), (rendering.seconds(0.25), "250 ms"),
        (rendering.size(2**20), "1 MiB"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(written, text):
    assert written == text


LINK = re.compile(r'(?:href|src|action|data-events)="([^"#?]*)')
PREFIX = "/tools/masks"


def get_below_prefix(client, path, *, stripped):
    """Get a path through a proxy that serves the installation below a prefix, and removes it from paths or does not."""
    assert path.startswith(f"{PREFIX}/"), path
    return client.get(path.removeprefix(PREFIX) if stripped else path, headers=HTML, follow_redirects=False)


@pytest.mark.parametrize("stripped", [True, False])
@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/{job}", "/compare", "/login", "/jobs/none", "/a/b%2Fc/d"])
def test_pages_work_below_the_prefix_of_a_proxy(settings, submit, path, stripped):
    path = PREFIX + path.format(job=submit()["id"])
    prefixed = settings.model_copy(update={} if stripped else {"root_path": PREFIX})
    with TestClient(create_app(prefixed), base_url="http://127.0.0.1:8000") as client:
        page = get_below_prefix(client, path, stripped=stripped)
        assert page.headers["content-type"].startswith("text/html")
        links = {urljoin(path, link) for link in LINK.findall(page.text) if link}
        assert f"{PREFIX}/static/masksmith.css" in links
        for link in links:
            if not link.endswith(("/cancel", "/events", "/session")):
                assert get_below_prefix(client, link, stripped=stripped).status_code == 200, link
        for name in re.findall(
            r'import .* from "(.*)"', get_below_prefix(client, f"{PREFIX}/static/home.js", stripped=stripped).text
        ):
            link = urljoin(f"{PREFIX}/static/home.js", name)
            assert get_below_prefix(client, link, stripped=stripped).status_code == 200


def test_a_cancelled_job_is_shown_below_the_prefix(client, submit):
    job = submit()["id"]
    answer = client.post(f"/jobs/{job}/cancel", follow_redirects=False)
    assert answer.status_code == 303
    assert urljoin(f"{PREFIX}/jobs/{job}/cancel", answer.headers["location"]) == f"{PREFIX}/jobs/{job}"


def test_scripts_have_no_absolute_addresses():
    scripts = [path for path in (PAGES / "static").iterdir() if path.name.endswith(".js")]
    assert len(scripts) > 5
    for script in scripts:
        assert not re.search(r"[\"'`]/(?![/*])\w", script.read_text()), script.name


def test_pages_show_no_control_characters_of_names(client, save):
    names = ["a\x1b]0;x\x07.weight", "b\u202ecod.weight", "c\u2066.weight"]
    body = save({name: np.ones((8, 8), np.float32) for name in names})
    job = client.post("/v1/masks", params={"pattern": "2:4", "layers": "*"}, content=body).json()["id"]
    for path in (f"/jobs/{job}", f"/compare?a={job}&b={job}", f"/jobs/{job}?q=%E2%80%AE", "/jobs?q=%1B", "/none%1B"):
        page = client.get(path, headers={"Accept": "text/html"}).text
        assert page.replace("\n", "").isprintable(), [char for char in page if not char.isprintable()]
    assert "b\\u202ecod.weight" in client.get(f"/jobs/{job}").text
    template = rendering._environment.from_string("{{ name }} {{ name | exact }}")
    assert template.render(name="<\u202e>") == "&lt;\\u202e&gt; &lt;\u202e&gt;"


def test_a_path_with_a_slash_at_its_end_is_not_redirected(client):
    for path in ("/jobs/", "/v1/jobs/", "/v1/session/"):
        assert client.get(path, follow_redirects=False).status_code == 404
