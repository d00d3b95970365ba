"""Figures that stand on several pages come from one: the tables that the benchmarks write."""

import re

import pytest
from support.pages import ROOT

PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", re.DOTALL | re.MULTILINE)
OTHER_NUMBERS = re.compile(
    r"(?<![\w.,/#:^-])\d{5,}(?![\w^,])"  # without commas
    r"|(?<![\w.,/-])\d{1,3}(?:[ \u202f]\d{3})+(?!\w)"  # spaces between thousands
    r"|(?<![\w.])[\d.,]+ ?(?:[KMGT]B|kB|kiB)\b(?!/s)"  # decimal units
)


def page(name):
    return (ROOT / name).read_text()


def column(table, title):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    index = rows[0].index(title)
    return {row[0]: row[index] for row in rows[2:]}


def measured_table():
    return re.search(r"<!-- solvers-table -->(.*)<!-- /solvers-table -->", page("README.md"), re.DOTALL)[1]


def times(text):
    return int(text.removesuffix("x"))


def test_other_tools_are_slower_by_what_was_measured():
    factors = [times(text) for text in column(measured_table(), "faster than OR-Tools bulk by").values()]
    assert f"{min(factors)} to {max(factors)} times slower" in page("docs/comparison.md")


@pytest.mark.parametrize(("solver", "title"), [
    ("OR-Tools bulk", "faster than OR-Tools bulk by"),
    ("Dykstra-300 (torch)", "faster than Dykstra-300 (torch) by"),
    ("greedy (numba)", "faster than greedy (numba) by"),
])  # fmt: skip
def test_the_readme_has_the_figures_of_the_full_table(solver, title):
    sections = re.split(r"^## ", page("docs/benchmarks/solvers.md"), flags=re.MULTILINE)[1:]
    for pattern, factor in column(measured_table(), title).items():
        section = next(each for each in sections if each.splitlines()[0].strip().startswith(pattern))
        table = re.search(r"^### MiniLM\n(.*?)(?:^###|\Z)", section, re.DOTALL | re.MULTILINE)[1]
        full = float(column(table, "Exact is faster by")[solver].removesuffix("x"))
        assert times(factor) == pytest.approx(full, abs=0.55), pattern


def test_the_questions_have_the_speed_ups_of_the_kernels_page():
    lines = page("docs/benchmarks/kernels.md")
    words = {
        (pattern, int(batch)): text
        for pattern, batch, text in re.findall(r"^- (\S+), batch (\d+), float32, forward: (.*)$", lines, re.MULTILINE)
    }
    faster = {batch: re.match(r"([\d.]+x) faster than dense", words["2:16", batch])[1] for batch in (32, 256)}
    text = " ".join(page("docs/faq.md").split())
    assert f"were {faster[32]} as fast as dense at 2:16 and batch 32, and {faster[256]} at batch 256" in text
    assert words["2:4", 32].startswith("within the noise of dense")
    assert "at 2:4 they were within the noise of dense at batch 32" in text
    assert all(words["2:4", batch].startswith("nothing beats dense") for batch in (1, 256))
    assert "nothing beat dense at batches 1 and 256" in text


def rows_of(name, first):
    """Return the rows, as cells, of the table of a page whose first title is `first`."""
    table = re.search(rf"^\| {re.escape(first)} .*\n\|[-|: ]+\n((?:\|.*\n)+)", page(name), re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def test_the_readme_has_the_measured_perplexities():
    measured = {
        (row[0], row[1]): float(row[2].replace(",", ""))
        for row in rows_of("docs/benchmarks/language_model.md", "method")
    }
    readme = page("README.md").partition("## Quality")[2]
    [titles] = re.findall(r"^\| pattern +\|(.*)\|$", readme, re.MULTILINE)
    methods = [{"masksmith": "masksmith, admm, tuned"}.get(title.strip(), title.strip()) for title in titles.split("|")]
    table = re.search(r"^\| pattern .*\n\|[-|: ]+\n((?:\|.*\n)+)", readme, re.MULTILINE)[1]
    for line in table.splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        pattern = "50%" if name == "50 % unstructured" else name.replace(" %", "%")
        for method, text in zip(methods, cells, strict=True):
            by_row = measured.get((f"{method}, by row", pattern))
            value = by_row or measured.get((method, pattern))
            assert text == "-" if value is None else float(text.replace(",", "")) in (value, round(value)), (
                name,
                method,
            )


def test_the_training_page_has_the_measured_cost_of_refreshes():
    rows = re.findall(r"^\| (.*) \| (.*) \|$", page("docs/benchmarks/refresh.md"), re.MULTILINE)
    at = next(number for number, row in enumerate(rows) if row[0].startswith("difference with refreshes, median of"))
    median, low, high = (
        f"{float(text):+.1f} %" for text in re.findall(r"[-+][\d.]+", f"{rows[at][1]} {rows[at + 1][1]}")
    )
    assert rows[at + 1][0] == "its 95 % interval"
    text = " ".join(page("docs/training.md").split())
    assert f"{median} time per step, with a 95 % interval from {low} to {high}" in text


def test_the_updates_page_has_the_measured_errors_of_refined_masks():
    table = "\n".join(line for line in page("docs/benchmarks/updates.md").splitlines() if line.startswith("|"))
    error = {name: float(text.split()[0]) for name, text in column(table, "error").items()}
    plain, transposable = (
        [
            f"{error[f'{shape}, refine{name}'] / error[f'{shape}, Wanda{name}']:.0%}"[:-1]
            for shape in ("1536x384", "384x1536")
        ]
        for name in ("", ", transposable 8:16")
    )
    plain, transposable = " and ".join(plain), " and ".join(transposable)
    sentence = f"{plain} % of that of Wanda's mask at 2:4, and {transposable} % at transposable 8:16"
    assert sentence in " ".join(page("docs/updates.md").split())


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_large_numbers_are_written_one_way(path):
    """As `masksmith_wire.quantities` writes them, outside code: `10,616,832`, `64 MiB`."""
    assert OTHER_NUMBERS.findall(CODE.sub("", path.read_text())) == []


@pytest.mark.parametrize("text", ["10616832", "635 376", "16961 ± 1", "64 MB", "1.5GB", "100 kB"])
def test_other_ways_are_noticed(text):
    assert OTHER_NUMBERS.search(f"It has {text} in all.")
