"""Write the page of sparse kernels from a report of `masksmith bench` and an independent check.

masksmith bench --model MiniLM --patterns "..." --batch 1,32,256 --output kernels.json
python benchmarks/break_even.py --report kernels.json > check.md
python benchmarks/kernels.py kernels.json check.md [--commit abc1234] [--write]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from measuring import ROOT

from masksmith.benchmark import Report, draw

COMMAND = (
    'masksmith bench --model MiniLM --patterns "2:4,transposable 8:16,2:16,1:16,block 16x16 25%,10%" --batch 1,32,256'
)
INTRO = """
The question: a mask throws weights away; does the rest run faster? This is the answer of one CPU for the linear layers
of all-MiniLM-L6-v2, of three shapes: 24 of 384x384, 6 of 1536x384, 6 of 384x1536. Made with

```sh
{command}
```

at commit {commit}. How it is measured: [kernels and method](../kernels.md). On your device run the same command; with a
CUDA device add `--device cuda --dtypes float16`.

How to read it. A *pattern* says which masks are allowed, and n:m counts the weights **kept**: `2:16` keeps 2 of every
16, an eighth. *Batch* is the number of rows multiplied at once: 1 is one token at a time. A *kernel* is a way to
multiply; `dense` ignores the mask and is what everybody has. A *speed-up* of 2x means half the time, 0.5x twice the
time.

What it comes to, here:

{findings}
![Speed-up against sparsity for each kernel and batch; bars for each layer](kernels.png)
"""
CHECK = """
## Checked by a script that shares nothing with masksmith

`benchmarks/break_even.py` finds the density at which `csr` breaks even with torch alone: its own masks (each entry by a
coin), its own timing. Other processes kept both cores busy meanwhile: ten percentage points are noise here.
"""


def findings(report: Report) -> str:
    """Summarize the main results in sentences."""
    gains = {(one.pattern, one.batch): one for one in report.estimates}
    lines = []
    for batch in sorted({batch for _, batch in gains}):
        pays = [one for (_, at), one in gains.items() if at == batch and one.speedup > 1.03]
        loses = [one.pattern for (_, at), one in gains.items() if at == batch and one.speedup <= 1.03]
        text = ", ".join(f"`{one.pattern}` {one.speedup:.1f}x" for one in pays) or "nothing"
        rest = f"; dense stays the best for {', '.join(f'`{name}`' for name in loses)}" if loses else ""
        lines.append(f"- Batch {batch}: {text}{rest}.")
    lines += [_against_mkl(report, 256), "- Zeros alone buy nothing: `dense-zeros` takes as long as `dense`.", ""]
    return "\n".join(lines)


def _against_mkl(report: Report, batch: int) -> str:
    """Compare masksmith's own kernel with MKL's compressed rows at 2:16."""
    parts = []
    for result in report.results:
        case = result.case
        own, mkl = result.of("nm-gather"), result.of("csr")
        if case.purpose == "asked" and (case.pattern, case.batch) == ("2:16", batch) and own and mkl:
            assert own.timing is not None
            assert mkl.timing is not None
            parts.append(f"{mkl.timing.median_s / own.timing.median_s:.1f}x on {case.layer.shape}")
    return f"- At 2:16 and batch {batch} `nm-gather` is faster than MKL's compressed rows by {', '.join(parts)}."


def page(report: Report, check: str, commit: str) -> str:
    """Return the page."""
    head = INTRO.format(command=COMMAND, commit=commit, findings=findings(report))
    title, _, rest = report.to_markdown("What masks buy on one CPU").partition("\n")
    rest = rest.replace("## In words", "## In words, pattern by pattern")
    return f"{title}\n{head}{rest.rstrip()}\n{CHECK}\n{check.strip()}\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("report", type=Path)
    options.add_argument("check", type=Path)
    options.add_argument("--commit", default="unknown")
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    report = Report.read(json.loads(arguments.report.read_text()))
    text = page(report, arguments.check.read_text(), arguments.commit)
    if not arguments.write:
        print(text)
        return
    (ROOT / "docs" / "benchmarks" / "kernels.md").write_text(text)
    draw(report, ROOT / "docs" / "benchmarks" / "kernels.png")


if __name__ == "__main__":
    main()
