"""Pages of the documentation: their code blocks, their tables, their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMPILING = re.compile(r"^compiling kernels for this machine.*\n", re.MULTILINE)
DURATION = r"\d[\d.,]* (?:s|min|h)(?: \d+ (?:s|min))?"
PROGRESS = re.compile(
    rf"^(?:uploading|solving|measuring|pruning|applying|verifying): .*, (?:about )?{DURATION}(?: left)?\n", re.MULTILINE
)
PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of a console block and its expected output."""

    text: str
    output: str


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Yield line number and text of the blocks of one language."""
    text = page.read_text()
    return [(text.count("\n", 0, m.start(2)), m[2]) for m in FENCE.finditer(text) if m[1] == language]


def program(page: Path) -> str:
    """Return a page's Python blocks as one program, every line where it stands in the page."""
    lines: list[str] = []
    for number, block in blocks(page, "python"):
        lines += [""] * (number - len(lines)) + block.splitlines()
    return "\n".join(lines) + "\n"


def commands(page: Path) -> list[Command]:
    """Return the commands of a page's console blocks: `$ ` begins one, and a backslash at a line's end continues it."""
    found: list[Command] = []
    for _, block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = next(number for number, line in enumerate(lines) if not line.endswith("\\")) + 1
            found.append(Command("\n".join(lines[:end]), "\n".join(lines[end:]).strip()))
    return found


def agrees(output: str, expected: str) -> bool:
    """Whether output is what a page expects: `...` stands for any text, and a page may break lines of the output.

    That kernels had to be compiled, or that something took seconds, depends on the machine, and is ignored.
    """
    lines = [
        r"\s+".join(".*?".join(re.escape(piece) for piece in word.split("...")) for word in line.split())
        for line in expected.strip().splitlines()
    ]
    return re.fullmatch(r"\s*".join(lines), PROGRESS.sub("", COMPILING.sub("", output)).strip(), re.DOTALL) is not None


def tables(page: Path, first_column: str) -> Iterator[list[list[str]]]:
    """Return the rows, as cells, of every table whose first column has this heading."""
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(), re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        if rows[0][0] == first_column:
            yield rows[2:]


def links(page: Path) -> list[str]:
    """Return the targets of links and pictures that lead to files here."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(FENCE, "", page.read_text()))
    return [target.split("#")[0] for target in found if "://" not in target and not target.startswith("#")]
