"""What the guide says is run: Python blocks as programs, console blocks in a shell, tables against the code."""

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE

import pytest
from pydantic_core import PydanticUndefined
from support.pages import GUIDE, PRINTED, ROOT, agrees, blocks, commands, links, program, tables, title

import masksmith
import masksmith_client
import masksmith_service.settings
import masksmith_worker.settings
from masksmith_client.cli.lazy import build_command, load
from masksmith_client.cli.table import COMMANDS
from masksmith_service.app import create_app
from masksmith_wire.errors import Code
from masksmith_wire.quantities import duration_text
from masksmith_worker.stages.memory import PEAK_MATRICES

START = ROOT / "docs" / "start.md"
HTTP = ROOT / "docs" / "http.md"
SECURITY = ROOT / "docs" / "security.md"
OPERATIONS = ROOT / "docs" / "operations.md"
COMPUTED = {"worker_name": "`worker-HOST-PID`", "worker_slots": "all cores"}
MARK = "@@masksmith@@"
# Pages whose code starts installations or solves for long; `make test-long` installs what `language_model` needs.
LONG_PAGES = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "adapters",
        "budgets",
        "checkpoints",
        "cli",
        "http",
        "kernels",
        "language_model",
        "measures",
        "patterns",
    )
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file that the start page makes."""
    folder = tmp_path_factory.mktemp("model")
    _, first = blocks(START, "python")[0]
    subprocess.run([sys.executable, "-c", first], cwd=folder, check=True)
    return folder / "model.safetensors"


@pytest.fixture
def place(tmp_path, model):
    """A folder with that file in it."""
    shutil.copy(model, tmp_path)
    return tmp_path


def pages_with(language):
    """The pages with blocks of a language, as parameters of a test; long ones are marked as slow."""
    return [
        pytest.param(page, id=title(page), marks=pytest.mark.slow if page in LONG_PAGES else ())
        for page in GUIDE
        if blocks(page, language)
    ]


@pytest.fixture(scope="module")
def run_program(reader):
    """Run a program as a reader would."""
    command = [sys.executable, "-m", "support.page_runner"]
    with subprocess.Popen(command, cwd=ROOT / "tests", stdin=PIPE, stdout=PIPE, text=True) as runner:

        def run(path):
            request = {"path": str(path), "folder": str(path.parent), "environment": reader}
            runner.stdin.write(f"{json.dumps(request)}\n")
            runner.stdin.flush()
            return json.loads(runner.stdout.readline())

        yield run
        runner.stdin.close()


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs_and_prints_what_it_says(page, place, run_program):
    script = place / page.with_suffix(".py").name
    script.write_text(program(page))
    done = run_program(script)
    assert done["code"] == 0, done["errors"]
    assert agrees(done["output"], "\n".join(PRINTED.findall(program(page)))), done["output"]


@pytest.mark.parametrize("page", pages_with("console"))
def test_commands_print_what_the_page_says(page, place, reader):
    given = [command for command in commands(page) if "curl" not in command.text or shutil.which("curl")]
    script = "exec 2>&1\n" + "".join(f"{command.text}\nprintf '\\n{MARK} %d\\n' $?\n" for command in given)
    done = subprocess.run(["bash", "-c", script], cwd=place, env=reader, stdout=subprocess.PIPE, text=True, check=False)
    answers = re.split(rf"\n{MARK} (\d+)\n", done.stdout)
    for command, output, code in zip(given, answers[::2], answers[1::2], strict=False):
        assert agrees(output, command.output), f"$ {command.text}\n{output}"
        assert code == "0", f"$ {command.text}\nexit code {code}"
    assert len(answers) == 2 * len(given) + 1


@pytest.mark.parametrize("elapsed_s", [5, 60, 100, 119.4, 3600, 9000])
@pytest.mark.parametrize("left", ["", ", about 12 s left", ", about 3 min 10 s left", ", about 2 h 5 min left"])
def test_progress_of_a_slow_machine_is_not_held_against_a_page(elapsed_s, left):
    progress = f"solving: 1 of 2 shards, {duration_text(elapsed_s)}{left}\n"
    assert agrees(f"solving: queued: starts soon, 5 s\n{progress}all solved, 0.1 s", "all solved, ...")
    assert agrees(f"{progress}solving failed", "solving failed")
    assert not agrees(f"solving: failed\n{progress}", "")


@pytest.mark.parametrize("page", GUIDE, ids=title)
def test_links_lead_somewhere(page):
    broken = [target for target in links(page) if not (page.parent / target).exists()]
    assert not broken


def test_every_page_is_within_reach_of_the_readme():
    reached, ahead = set(), {ROOT / "README.md"}
    while ahead:
        page = ahead.pop()
        reached.add(page)
        found = {(page.parent / target).resolve() for target in links(page) if target.endswith(".md")}
        ahead |= found - reached
    assert set((ROOT / "docs").glob("*.md")) <= reached


def settings_rows(settings) -> list[list[str]]:
    """Return a settings class as the rows of a table: variable, default, meaning."""
    classes = [base for base in settings.__mro__ if base.__module__.startswith("masksmith")]
    bodies = [ast.parse(inspect.getsource(base)).body[0].body for base in classes]
    meanings = {
        node.target.id: ast.literal_eval(after.value)
        for body in bodies
        for node, after in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr)
    }
    return [
        [
            f"`MASKSMITH_{name.upper()}`",
            COMPUTED[name] if field.default is PydanticUndefined else f"`{field.default}`",
            meanings[name],
        ]
        for name, field in settings.model_fields.items()
    ]


@pytest.mark.parametrize(
    ("number", "settings"), [(0, masksmith_service.settings.Settings), (1, masksmith_worker.settings.Settings)]
)
def test_settings_tables_are_the_settings(number, settings):
    rows = settings_rows(settings)
    wanted = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    assert list(tables(OPERATIONS, "variable"))[number] == rows, f"the table should be\n{wanted}"


def test_memory_for_gram_matrices_is_what_workers_reserve():
    rows = [[f"`{use}`", f"{factor:g}"] for use, factor in PEAK_MATRICES.items()]
    assert list(tables(OPERATIONS, "use")) == [rows]


def test_every_problem_code_is_explained_once():
    explained = [row[0].strip("`") for table in tables(HTTP, "code") for row in table]
    assert sorted(explained) == sorted(Code)


def test_codes_of_workers_are_said_to_be_in_jobs():
    sources = "".join(path.read_text() for path in (ROOT / "worker").rglob("*.py"))
    status = {row[0].strip("`"): row[1] for table in tables(HTTP, "code") for row in table}
    named = {Code[name].value for name in re.findall(r"\bCode\.([A-Z_]+)", sources)}
    assert {code for code in named if "in a job" not in status[code]} == set()


def test_every_call_has_an_example():
    schema = create_app(masksmith_service.settings.Settings()).openapi()
    text = HTTP.read_text()
    for path, methods in schema["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}" in text, f"{method.upper()} {path}"


def test_promises_name_tests_that_exist():
    for promises in tables(SECURITY, "promise"):
        for _, test in promises:
            path, _, name = test.strip("`").partition("::")
            assert f"\ndef {name}(" in (ROOT / path).read_text(), test


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("library", masksmith.__all__),
        ("client", [name for name in dir(masksmith_client) if inspect.isclass(getattr(masksmith_client, name))]),
    ],
)
def test_every_name_is_in_the_reference(page, names):
    listed = re.findall(r"^::: \S+\.(\w+)$", (ROOT / "docs" / "reference" / f"{page}.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(names) - {"JobState", "TensorReport"})


def test_every_command_is_described():
    text = (ROOT / "docs" / "cli.md").read_text()
    headings = {word for line in re.findall(r"^## (.*)$", text, re.MULTILINE) for word in line.split(", ")}
    assert headings == {path.partition(" ")[0] for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_described(path):
    """In the section of its command; those that many commands have are described at the beginning of the page."""
    sections = re.split(r"^## ", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)[1:]
    name = path.partition(" ")[0]
    section = next(each for each in sections if name in each.partition("\n")[0].split(", "))
    options = [
        [*option.opts, *option.secondary_opts] for option in build_command(path, load(path, COMMANDS[path])).params
    ]
    named = [[name for name in names if name.startswith("--")] for names in options]
    common = {"--help", "--json", "--url"}
    assert [
        names for names in named if names and not common & {*names} and not any(f"`{name}" in section for name in names)
    ] == []


def test_the_architecture_fits_on_a_page():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 150


def test_decisions_have_the_same_parts():
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        parts = re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"]
        enforced = path.read_text().partition("## Enforced by")[2]
        named = re.findall(r"`((?:tests|benchmarks|pyproject)[\w./]*)", enforced)
        assert named, path
        assert all((ROOT / Path(name)).exists() for name in named), named
