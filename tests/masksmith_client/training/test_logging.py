"""What loggers get of refreshes, and how requests are paced when responses take longer than the interval."""

import pytest
import torch
from support.training_loop import WAITING, train

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Refresh, RunLogger, Sparsifier, TensorBoardLogger
from masksmith_client.training.pacing import Pacing

PATTERN = "transposable 2:4"
NAMES = ["retained", "flip_rate", "sad", "gap", "staleness_steps", "seconds", "sent", "unchanged", "failed", "late"]


class Writer:
    """As torch.utils.tensorboard.SummaryWriter."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.scalars.append((tag, scalar_value, global_step))


class Run:
    """As wandb's: rows in the order of its own steps."""

    def __init__(self):
        self.rows, self.axes = [], {}

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, data, step=None):
        self.rows.append((step, data))


def test_every_refresh_is_logged_once(model, optimizer):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    early, late = [], []
    sparsifier.log_to(lambda metrics, step: early.append((step, metrics)))
    train(model, optimizer, sparsifier, 6)
    sparsifier.log_to(lambda metrics, step: late.append((step, metrics)))
    sparsifier.refresh_now()
    assert [step for step, _ in early] == [0, 4, 6]
    assert late == early, "a logger that comes later gets the refreshes before it"
    report = sparsifier.report()
    entries = sum(mask.numel() for mask in sparsifier.masks.values())
    for (_, metrics), record in zip(early, report.refreshes, strict=True):
        assert sorted(metrics) == sorted(f"masksmith/{name}" for name in NAMES)
        assert metrics["masksmith/sad"] == record.sad
        assert metrics["masksmith/flip_rate"] == record.sad / entries
        assert metrics["masksmith/gap"] == 0.0
        assert metrics["masksmith/staleness_steps"] == 0
    magnitudes = {f"{place}.weight": model[place].parametrizations.weight.original.detach().abs() for place in (2, 4)}
    kept = sum(float((magnitudes[name] * mask).sum()) for name, mask in sparsifier.masks.items())
    total = sum(float(each.sum()) for each in magnitudes.values())
    assert early[-1][1]["masksmith/retained"] == pytest.approx(kept / total)


def test_a_loaded_history_is_not_logged_again(model, optimizer):
    first = Sparsifier(model, PATTERN, ms.solve, WAITING)
    train(model, optimizer, first, 5)
    state = first.state_dict()
    first.bake()
    again = Sparsifier(model, PATTERN, ms.solve, WAITING)
    again.load_state_dict(state)
    rows = []
    again.log_to(lambda metrics, step: rows.append(step))
    assert rows == []
    train(model, optimizer, again, 4)
    assert rows == [8]


def test_masks_without_proof_have_no_gap(model):
    rows = []
    sparsifier = Sparsifier(model, PATTERN, lambda scores, pattern: ms.solve(scores, pattern).mask, WAITING)
    sparsifier.log_to(lambda metrics, step: rows.append(metrics))
    assert "masksmith/gap" not in rows[0]
    assert sparsifier.report().refreshes[0].gap is None


def test_loggers_of_tensorboard_and_of_runs(model, optimizer):
    writer, run = Writer(), Run()
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    sparsifier.log_to(TensorBoardLogger(writer))
    sparsifier.log_to(RunLogger(run))
    train(model, optimizer, sparsifier, 4)
    assert [step for tag, _, step in writer.scalars if tag == "masksmith/sad"] == [0, 4]
    assert run.axes == {"masksmith/step": None, "masksmith/*": "masksmith/step"}
    assert [(step, row["masksmith/step"]) for step, row in run.rows] == [(None, 0), (None, 4)]
    assert {tag: value for tag, value, step in writer.scalars if step == 4}.items() <= run.rows[1][1].items()


@pytest.mark.parametrize(
    "make",
    [lambda _: TensorBoardLogger(3), lambda _: RunLogger(3), lambda sparsifier: sparsifier.log_to(3)],
    ids=["tensorboard", "run", "function"],
)
def test_what_cannot_log_is_named(model, make):
    with pytest.raises(InputError, match="=3"):
        make(Sparsifier(model, PATTERN, ms.solve, None))


def simulate(every, takes, steps, **options):
    """Requests' steps and the refreshes that became due while one was pending."""
    pacing, requested, late, pending = Pacing(Refresh(every=every, **options)), [], 0, None
    for step in range(1, steps + 1):
        if pending is not None and step - pending >= takes:
            pending = None
        if pacing.is_due(step, any_dense=False):
            if pending is not None:
                late += pacing.on_late(step)
            else:
                pacing.on_request(step, "2:4")
                requested.append(step)
                pending = step
    return requested, late


@pytest.mark.parametrize(
    ("every", "takes", "expected", "late"),
    [
        (10, 3, [10, 20, 30, 40, 50, 60], 0),
        # 10 ms steps and 200 ms responses: as one arrives the next is requested, not at the next multiple of 15.
        (15, 20, [15, 35, 55], 3),
        (1, 20, [1, 21, 41], 57),
    ],
)
def test_requests_follow_the_pace_of_responses(every, takes, expected, late):
    assert simulate(every, takes, 60) == (expected, late)


def test_an_overdue_request_is_not_made_after_the_end():
    assert simulate(10, 15, 60, until=25) == ([10], 1)


def test_a_late_response_is_followed_by_a_request_at_once(model):
    held = []

    class Held:
        """A worker whose response is given out by the test."""

        handled_in = "the test"

        def __init__(self, worker):
            self.worker, self.requests = worker, []

        def submit(self, request):
            self.requests.append(request.step)
            self.worker.submit(request)

        def poll(self):
            return self.worker.wait() if held else None

        def wait(self):
            return self.worker.wait()

        def close(self):
            self.worker.close()

    with Sparsifier(model, PATTERN, lambda scores, pattern: ms.solve(scores, pattern), refresh=5) as sparsifier:
        worker = sparsifier._refresher._worker = Held(sparsifier._refresher._worker)
        for step in range(1, 24):
            sparsifier.step()
            if step == 22:
                held.append(True)
        assert worker.requests == [5, 23]
        assert sparsifier.report().late == 3
        record = sparsifier.report().refreshes[-1]
        assert (record.asked_at, record.applied_at, record.staleness_steps, record.late) == (5, 23, 18, 3)
        sparsifier.refresh_now()


def test_gradients_are_recorded_while_a_request_is_overdue(model, optimizer):
    """A request that follows a late response selects by the gradient of the step before."""
    from masksmith_client.training import PruneAndGrow

    sparsifier = Sparsifier(model, PATTERN, ms.solve, Refresh(every=5, wait=True), PruneAndGrow(until=50))
    sparsifier._updates._pacing.on_late(0)
    sparsifier._updates.reset_gradients()
    train(model, optimizer, sparsifier, 1)
    assert [record.asked_at for record in sparsifier.report().refreshes] == [0, 1]
    assert torch.isfinite(model[2].weight).all()
