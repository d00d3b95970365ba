"""Write the page of sparse kernels from a report of `masksmith bench` and an independent check.

masksmith bench --local --model MiniLM --patterns "..." --batch 1,32,256 --output kernels.json
python benchmarks/break_even.py --report kernels.json > check.md
python benchmarks/kernels.py kernels.json check.md [--load "..."] [--write]

Run the three commands on the same commit: the page names the commit that is checked out. `--load` is a text for the
page that says what else ran on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from measuring import ROOT, commit

from masksmith.benchmark import Estimate, Report, draw
from masksmith.benchmark.results import CaseResult, Gain

INTRO = """
The question: a mask throws weights away; does the rest run faster? This is the answer of one CPU for the linear layers
of all-MiniLM-L6-v2, of three shapes: 24 of 384x384, 6 of 1536x384, 6 of 384x1536. Made with

```sh
{command}
```

at commit {commit}; {load}. How it is measured: [kernels and method](../kernels.md). On your device run the same
command; with a CUDA device add `--device cuda --dtypes float16`.

How to read it. A *pattern* says which masks are allowed, and n:m counts the weights **kept**: `2:16` keeps 2 of every
16, an eighth. *Batch* is the number of rows multiplied at once: 1 is one token at a time. A *kernel* is a way to
multiply; `dense` ignores the mask and is what everybody has. A *speed-up* of 2x means half the time, 0.5x twice the
time; its range is from the 20th and 80th percentiles of both times, and where it includes 1x, or the speed-up is at
most 1.03x, the two are within the noise.

What it comes to, here:

{findings}
![Speed-up against sparsity for each kernel and batch; bars for each layer](kernels.png)
"""
CHECK = """
## Checked by a script that shares nothing with masksmith

`benchmarks/break_even.py` finds the density at which `csr` breaks even with torch alone: its own masks (each entry by a
coin), its own timing, on the same machine directly afterwards. In parentheses the range of the benchmark's figures,
from the percentiles of its times.
"""


def findings(report: Report) -> str:
    """Summarize the main results in sentences."""
    batches = sorted({estimate.batch for estimate in report.estimates})
    lines = [
        _batch_finding([estimate for estimate in report.estimates if estimate.batch == batch], batch)
        for batch in batches
    ]
    lines += [_mkl_finding(report, max(batches)), _zeros_finding(report)]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _batch_finding(estimates: Sequence[Estimate], batch: int) -> str:
    """List the patterns that are faster than dense, those within the noise, and those for which dense is the best."""
    faster, noise, slower = [], [], []
    for estimate in estimates:
        if estimate.speedup > 1.0 and not estimate.is_noise:
            faster.append(f"`{estimate.pattern}` {estimate.speedup:.1f}x")
        if estimate.is_noise:
            noise.append(f"`{estimate.pattern}` {estimate.speedup:.2f}x")
        if estimate.speedup <= 1.0:
            slower.append(f"`{estimate.pattern}`")
    text = f"Batch {batch}: {', '.join(faster) or 'nothing is faster than dense'}"
    text += f"; within the noise {', '.join(noise)}" if noise else ""
    return text + (f"; dense stays the best for {', '.join(slower)}." if slower else ".")


def _mkl_finding(report: Report, batch: int) -> str:
    """Compare masksmith's own kernel with MKL's compressed rows at 2:16."""
    gains = {
        result.case.layer.shape: _gain(result, "csr", "nm-gather")
        for result in report.results
        if result.case.purpose == "asked" and (result.case.pattern, result.case.batch) == ("2:16", batch)
    }
    parts = [f"{gain} on {shape}" for shape, gain in gains.items() if gain]
    return f"At 2:16 and batch {batch}, time of MKL's compressed rows over that of `nm-gather`: {'; '.join(parts)}."


def _zeros_finding(report: Report) -> str:
    """Compare the dense product of a masked weight with the dense product of the weight, over all cases."""
    gains = [gain for result in report.results if (gain := _gain(result, "dense", "dense-zeros"))]
    different = sum(not gain.is_noise for gain in gains)
    median = statistics.median(gain.value for gain in gains)
    return (
        f"Zeros alone: `dense-zeros`, the dense product of the masked weight, runs at {median:.2f}x of `dense` in the "
        f"median of {len(gains)} cases; in {different or 'none'} of them the two differ by more than the noise."
    )


def _gain(result: CaseResult, slow: str, fast: str) -> Gain | None:
    """Return the time of kernel `slow` over the time of `fast`, with its range; None if one was not measured."""
    slow_measurement, fast_measurement = result.of(slow), result.of(fast)
    if slow_measurement is None or fast_measurement is None:
        return None
    timings = fast_measurement.compared_with(slow_measurement)
    return None if timings is None else Gain.of(*timings)


def command(report: Report) -> str:
    """Return the command that makes this report."""
    patterns = ",".join(dict.fromkeys(estimate.pattern for estimate in report.estimates))
    batches = ",".join(str(batch) for batch in sorted({estimate.batch for estimate in report.estimates}))
    rounds = report.settings["rounds"]
    return f'masksmith bench --local --model MiniLM --batch {batches} --rounds {rounds} \\\n  --patterns "{patterns}"'


def page(report: Report, check: str, load: str) -> str:
    """Return the page."""
    head = INTRO.format(command=command(report), commit=commit(), load=load, findings=findings(report))
    title, _, rest = report.to_markdown("What masks buy on one CPU").partition("\n")
    rest = rest.replace("## In words", "## In words, pattern by pattern")
    return f"{title}\n{head}{rest.rstrip()}\n{CHECK}\n{check.strip()}\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("report", type=Path)
    options.add_argument("check", type=Path)
    options.add_argument("--load", default="nothing else ran on the machine")
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    report = Report.read(json.loads(arguments.report.read_text()))
    text = page(report, arguments.check.read_text(), arguments.load)
    if not arguments.write:
        print(text)
        return
    (ROOT / "docs" / "benchmarks" / "kernels.md").write_text(text)
    draw(report, ROOT / "docs" / "benchmarks" / "kernels.png")


if __name__ == "__main__":
    main()
