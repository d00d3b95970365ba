"""Cases solved twice: by the CPU's kernels here, and by the device's in a process with numba's CUDA simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from support.strategies import scores_of

import masksmith as ms

from .simulated import earlier

FIELDS = ("name", "pattern", "ragged", "bfloat16", "hysteresis")
SCRIPT = Path(__file__).parent / "simulated.py"


@dataclass(frozen=True)
class Case:
    """One solve; arrays go by the names that `solve` has for them, and `start`, `u`, `v` for a warm start."""

    name: str
    pattern: str
    scores: np.ndarray
    ragged: str = "pad"
    bfloat16: bool = False
    hysteresis: float = 0.0
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, pattern: str, down: int = 1, across: int = 2, dtype: type = np.float32) -> Case:
        """Make a case from one of the generators."""
        tile = ms.parse(pattern).tile
        return cls(f"{pattern} {name} {np.dtype(dtype)}", pattern, scores_of(name, 7, tile, down, across, dtype))

    def solve_on_cpu(self) -> ms.Solution | ms.MasksmithError:
        """Solve on the CPU."""
        arguments = dict(self.arrays)
        scores = torch.from_numpy(self.scores).bfloat16() if self.bfloat16 else self.scores
        if "u" in arguments:
            arguments["warm_start"] = earlier(arguments.pop("start"), arguments.pop("u"), arguments.pop("v"))
        pattern = ms.parse(self.pattern, ragged=self.ragged)
        try:
            return ms.solve(scores, pattern, "exact", keep_duals=True, hysteresis=self.hysteresis, **arguments)
        except ms.MasksmithError as error:
            return error


@pytest.fixture(scope="session")
def simulate(tmp_path_factory):
    """Solve cases in the simulator; gives their answers by name."""

    def run(cases: list[Case]) -> dict[str, dict[str, np.ndarray]]:
        folder = tmp_path_factory.mktemp("simulated")
        arrays, documents = {}, []
        for number, case in enumerate(cases):
            keys = {word: f"{number}-{word}" for word in ("scores", *case.arrays)}
            arrays.update({keys[word]: case.arrays.get(word, case.scores) for word in keys})
            documents.append(
                {
                    **{k: getattr(case, k) for k in ("name", "pattern", "ragged", "bfloat16", "hysteresis")},
                    "arrays": keys,
                }
            )
        (folder / "cases.json").write_text(json.dumps(documents))
        np.savez(folder / "arrays.npz", **arrays)
        environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
        done = subprocess.run([sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        answers: dict[str, dict[str, np.ndarray]] = {case.name: {} for case in cases}
        for key, value in np.load(folder / "answers.npz").items():
            name, word = key.rsplit("/", 1)
            answers[name][word] = value
        return answers

    return run
