"""Masks arrive beside the loop: who asks, what is sent, what is recorded, what happens when nobody answers."""

import itertools
import logging
import os
import resource
import signal
import threading
import time

import httpx2
import pytest
import torch
from support.processes import poll
from support.training_loop import WAITING, loss_of, obeys, perceptron, train

import masksmith as ms
from masksmith_client import ClientError, InputError
from masksmith_client.training import SRSTE, Fixed, Refresh, Sparsifier, StraightThrough

PATTERN = "transposable 2:4"


def step_until(sparsifier, condition, timeout_s=300.0):
    """Take steps without training until something holds."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it took too long"
        sparsifier.step()
        time.sleep(0.005)


def refreshed(sparsifier, count):
    return lambda: len(sparsifier.report().refreshes) >= count


class Gate:
    """`masksmith.solve` behind a gate that can be shut or broken."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.calls = 0

    def __call__(self, scores, pattern):
        self.calls += 1
        assert self.open.wait(300)
        if self.broken:
            raise ConnectionError("the line is cut")
        return ms.solve(scores, pattern)


def test_the_process_that_asks_finds_the_masks_that_waiting_finds_and_ends_with_the_sparsifier(model, optimizer):
    with Sparsifier(model, PATTERN, ms.solve, refresh=5) as sparsifier:
        assert sparsifier.report().asking == "a process"
        train(model, optimizer, sparsifier, 5)
        asked_for = {name: model.get_parameter(where).detach().clone() for name, where in dense_names().items()}
        step_until(sparsifier, refreshed(sparsifier, 2))
        record = sparsifier.report().refreshes[1]
        assert (record.asked_at, record.optimal, record.failed) == (5, True, 0)
        assert record.applied_at > 5
        for name, mask in sparsifier.masks.items():
            assert torch.equal(mask, ms.solve(ms.magnitude(asked_for[name]), PATTERN).mask)
        pid = sparsifier._refresher._worker.pid
        sparsifier.bake()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def dense_names():
    return {f"{place}.weight": f"{place}.parametrizations.weight.original" for place in (2, 4)}


def test_a_process_that_was_killed_is_replaced(model, optimizer, caplog):
    with Sparsifier(model, PATTERN, ms.solve, refresh=50) as sparsifier:
        before, pid = sparsifier.masks, sparsifier._refresher._worker.pid
        os.kill(pid, signal.SIGSTOP)
        train(model, optimizer, sparsifier, 50)
        os.kill(pid, signal.SIGKILL)
        step_until(sparsifier, lambda: sparsifier.report().trouble)
        assert "exit code -9" in sparsifier.report().trouble
        assert all(torch.equal(mask, before[name]) for name, mask in sparsifier.masks.items())
        step_until(sparsifier, refreshed(sparsifier, 2))
        assert sparsifier.report().trouble is None
    told = [record.message for record in caplog.records if "masks are" in record.message]
    assert len(told) == 2
    assert told[1] == "masks are refreshed again"


def test_a_machine_without_room_for_a_process_trains_on(model, optimizer, monkeypatch):
    with Sparsifier(model, PATTERN, ms.solve, refresh=2) as sparsifier:
        os.kill(sparsifier._refresher._worker.pid, signal.SIGKILL)
        sparsifier._refresher._worker._process.wait()

        def refuse(*arguments, **options):
            raise BlockingIOError(11, "Resource temporarily unavailable")

        with monkeypatch.context() as patched:
            patched.setattr("subprocess.Popen", refuse)
            train(model, optimizer, sparsifier, 6)
        assert "cannot be started: [Errno 11] Resource temporarily unavailable" in sparsifier.report().trouble
        step_until(sparsifier, refreshed(sparsifier, 2))
        assert sparsifier.report().outages == 1


@pytest.fixture
def many_open_files():
    """Opens so many files that further ones have descriptors of at least 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files = [os.open(os.devnull, os.O_RDONLY)]
    while files[-1] < 1024:
        files.append(os.dup(files[0]))
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_refresh_process_answers_a_training_process_with_many_open_files(model, many_open_files):
    with Sparsifier(model, PATTERN, ms.solve, refresh=50) as sparsifier:
        assert sparsifier.report().asking == "a process"
        assert obeys(sparsifier, PATTERN)


def test_names_of_layers_may_have_letters_that_the_encoding_of_the_environment_lacks(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    model = torch.nn.Sequential()
    for name in ("a", "gr\u00f6\u00dfe", "z"):
        model.add_module(name, torch.nn.Linear(8, 8))
    with Sparsifier(model, PATTERN, ms.solve, refresh=50) as sparsifier:
        assert sparsifier.report().asking == "a process"
        assert list(sparsifier.masks) == ["gr\u00f6\u00dfe.weight"]


@pytest.mark.parametrize("masks", [ms.solve, Gate()], ids=["process", "thread"])
def test_masks_are_refreshed_again_after_close(model, masks):
    """As Lightning's callback closes after an exception, and training may go on."""
    sparsifier = Sparsifier(model, PATTERN, masks, refresh=2)
    for _ in range(2):
        sparsifier.step()
    sparsifier.close()
    step_until(sparsifier, refreshed(sparsifier, 3))
    sparsifier.close()


def test_the_loop_never_waits_and_says_once_that_masks_stay_out(model, optimizer, caplog):
    gate = Gate()
    sparsifier = Sparsifier(model, PATTERN, gate, refresh=2)
    assert sparsifier.report().asking == "a thread"
    before = sparsifier.masks
    gate.open.clear()
    train(model, optimizer, sparsifier, 20)
    assert all(torch.equal(mask, before[name]) for name, mask in sparsifier.masks.items())
    poll(lambda: gate.calls >= 3)
    assert gate.calls == 3, "one layer after the other, and one question at a time"
    assert sparsifier.report().late == 9
    gate.open.set()
    step_until(sparsifier, refreshed(sparsifier, 3))
    [said] = [record.message for record in caplog.records]
    assert said.startswith("the masks requested at step 2 have not arrived, and the next are due; training continues")
    assert sparsifier.report().refreshes[1].asked_at == 2
    assert sparsifier.report().outages == 0


def test_a_source_that_breaks_leaves_the_masks_and_recovers(model, optimizer, caplog):
    caplog.set_level(logging.WARNING)
    gate = Gate()
    sparsifier = Sparsifier(model, PATTERN, gate, refresh=1)
    before, gate.broken = sparsifier.masks, True
    train(model, optimizer, sparsifier, 10, lambda step: time.sleep(0.01))
    step_until(sparsifier, lambda: sparsifier.report().trouble)
    assert all(torch.equal(mask, before[name]) for name, mask in sparsifier.masks.items())
    assert sparsifier.report().trouble == "ConnectionError: the line is cut"
    gate.broken = False
    step_until(sparsifier, refreshed(sparsifier, 2))
    told = [record.message for record in caplog.records if record.name.endswith("training") and not record.exc_info]
    # On a busy machine masks may also be late, which is said in another message.
    assert [message.partition(":")[0] for message in told if "have not arrived" not in message] == [
        "masks are not being refreshed",
        "masks are refreshed again",
    ]


def test_after_an_error_at_a_refresh_that_is_waited_for_masks_in_place_still_hold(model):
    gate, refresh = Gate(), Refresh(every=2, wait=True)
    sparsifier = Sparsifier(model, PATTERN, gate, refresh, Fixed(), in_place=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, sparsifier, 1)
    gate.broken = True
    with torch.no_grad():
        model[2].weight += 1.0  # As the momentum of weights that were pruned lately does.
    with pytest.raises(ClientError, match="the masks of step 2 could not be computed"):
        sparsifier.step()
    assert not model[2].weight[~sparsifier.masks["2.weight"]].any()


def test_masks_that_were_pending_are_in_place_if_the_refresh_after_them_fails(model):
    calls = []

    def solve(scores, pattern):
        calls.append(pattern)
        if len(calls) > 4:  # Two layers twice: their weights change when zeros are written into them.
            raise ConnectionError("gone")
        return ms.solve(scores, pattern)

    sparsifier = Sparsifier(model, PATTERN, solve, Refresh(every=1), Fixed(), in_place=True)
    before = sparsifier.masks["2.weight"]
    with torch.no_grad():
        model[2].weight.copy_(torch.rand_like(model[2].weight) + 1.0)
        sparsifier.step()
        model[2].weight += 1.0
    with pytest.raises(ClientError, match="could not be computed"):
        sparsifier.refresh_now()
    mask = sparsifier.masks["2.weight"]
    assert not torch.equal(mask, before)
    assert not model[2].weight[~mask].any()


def test_unchanged_layers_are_not_sent(client, service, model):
    with Sparsifier(model, PATTERN, client, Refresh(1, wait=True), StraightThrough()) as sparsifier:
        assert service.count("PUT", "/v1/tensors") == 2
        sparsifier.step()
        assert service.count("POST", "/v1/jobs") == 1
        model[2].parametrizations.weight.original.data.mul_(1.1)
        sparsifier.step()
        assert service.count("POST", "/v1/jobs") == 2
        assert service.count("PUT", "/v1/tensors") == 3
        records = sparsifier.report().refreshes
        assert [(record.sent, record.unchanged) for record in records] == [(2, 0), (0, 2), (1, 1)]
        assert service.jobs == {}, "finished jobs are deleted"


def test_a_layer_without_mask_keeps_its_last_one(client, service, model, caplog):
    with Sparsifier(model, PATTERN, client, Refresh(1, wait=True), StraightThrough()) as sparsifier:
        before = sparsifier.masks
        service.bad_tensors.add("4.weight")
        for factor in (1.1, 1.2):
            for place in (2, 4):
                model[place].parametrizations.weight.original.data.mul_(factor)
            sparsifier.step()
        assert torch.equal(sparsifier.masks["4.weight"], before["4.weight"])
        assert [record.failed for record in sparsifier.report().refreshes] == [0, 1, 1]
        assert len(caplog.records) == 1
        assert "layer '4.weight' keeps its last mask" in caplog.records[0].message


def test_nobody_at_the_address_is_an_error_at_the_start(client, service, model):
    def refused(request):
        raise httpx2.ConnectError("connection refused")

    service.fail("GET", "/healthz", *[refused] * 9)
    with pytest.raises(ClientError, match="the masks of step 0 could not be computed: no masksmith service answers"):
        Sparsifier(model, PATTERN, client)
    assert "parametrizations" not in " ".join(model.state_dict())


def test_flips_are_counted_and_hysteresis_spares_them():
    flips = {}
    for hysteresis in (0.0, 0.02, 10.0):
        model = perceptron()
        sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, StraightThrough(), hysteresis=hysteresis)
        seen = [sparsifier.masks]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(5):
            train(model, optimizer, sparsifier, 4)
            seen.append(sparsifier.masks)
        records = sparsifier.report().refreshes
        for (before, after), record in zip(itertools.pairwise(seen), records[1:], strict=True):
            sad = sum(int((after[name] ^ before[name]).sum()) for name in after)
            assert (record.sad, record.flip_rate) == (sad, sad / 2048)
        flips[hysteresis] = sum(record.sad for record in records)
        assert all(record.optimal for record in records)
    assert flips[0.0] > flips[0.02] > flips[10.0] == 0


def test_masks_are_found_once_without_refresh(model, optimizer):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, refresh=None, method=Fixed())
    before = sparsifier.masks
    train(model, optimizer, sparsifier, 120)
    assert all(torch.equal(mask, before[name]) for name, mask in sparsifier.masks.items())
    assert len(sparsifier.report().refreshes) == 1


def test_refreshes_begin_and_end_when_told(model, optimizer):
    refresh = Refresh(every=2, begin=4, until=9, wait=True)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, refresh)
    train(model, optimizer, sparsifier, 14)
    assert [record.asked_at for record in sparsifier.report().refreshes] == [0, 4, 6, 8]


def test_scores_may_be_ones_own(model):
    def signed(name, weight):
        return weight.clamp_min(0)

    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, SRSTE(), scores=signed)
    weight = model[2].parametrizations.weight.original.detach()
    assert torch.equal(sparsifier.masks["2.weight"], ms.solve(weight.clamp_min(0), PATTERN).mask)
    with pytest.raises(InputError, match=r"scores of '2.weight' have shape \[32\], not \[32, 32\]"):
        Sparsifier(perceptron(), PATTERN, ms.solve, WAITING, scores=lambda name, weight: weight.sum(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_every_float_dtype_are_masked(dtype):
    model = perceptron().to(dtype)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, hysteresis=0.01)
    assert obeys(sparsifier, PATTERN)
    model(torch.randn(2, 8, dtype=dtype)).sum().backward()
    sparsifier.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Refresh(every=0), "refresh: every=0 must be a whole number of at least 1"),
        (lambda: Refresh(begin=5, until=4), "until=4 is before begin=5"),
        (lambda: Refresh(timeout_s=0), "timeout_s=0 must be positive"),
        (lambda: Sparsifier(perceptron(), PATTERN, ms.solve, refresh=2.5), "every=2.5"),
        (lambda: Sparsifier(perceptron(), PATTERN, ms.solve, hysteresis=-1), "hysteresis=-1"),
        (lambda: Sparsifier(perceptron(), "9:4", ms.solve), "9:4: n counts the kept entries"),
        (lambda: Sparsifier(perceptron(), PATTERN, lambda scores, pattern: scores), "expected bool of"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ClientError, match=message):
        make()


def test_the_report_reads_well(model, optimizer):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    train(model, optimizer, sparsifier, 4)
    text = str(sparsifier.report())
    assert text.startswith("transposable 2:4, SRSTE, step 4: 2 masked layer(s)")
    assert "requested after step 4, applied after step 4" in text
    assert sparsifier.report().as_dict()["layers"][0]["gap"] == 0.0
    assert loss_of(model).item() > 0


def test_scores_that_fail_once_do_not_stop_later_refreshes():
    calls = []

    def scores(name, weight):
        calls.append(name)
        if len(calls) == 3:  # The first layer at the second request.
            raise RuntimeError("out of memory")
        return weight.abs()

    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, scores=scores)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(model, optimizer, sparsifier, 8)
    before = len(sparsifier.report().refreshes)
    sparsifier.refresh_now()
    train(model, optimizer, sparsifier, 8)
    assert len(sparsifier.report().refreshes) > before + 1


@pytest.mark.parametrize(("first", "second"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64)])
def test_masks_are_solved_on_the_values_of_a_model_whose_dtype_has_changed(model, first, second):
    sparsifier = Sparsifier(model.to(first), "2:4", ms.solve, WAITING, method=Fixed())
    weight = model.to(second)[2].parametrizations.weight.original
    # In the first dtype all of these values are 1.
    with torch.no_grad():
        weight.copy_(1 + torch.finfo(first).eps / 8 * torch.rand(weight.shape, dtype=torch.float64))
    sparsifier.refresh_now()
    values = weight.detach().double()
    largest_sum = pytest.approx(values.reshape(-1, 4).topk(2).values.sum().item(), rel=1e-12)
    assert (values * sparsifier.masks["2.weight"]).sum().item() == largest_sum
    assert sparsifier.report().layers[0].objective == largest_sum


def test_a_refresh_in_which_layers_fail_is_an_error_and_not_optimal(model):
    sparsifier = Sparsifier(model, "2:4", ms.solve, WAITING)
    for index in (2, 4):
        model[index].parametrizations.weight.original.data[0, 0] = torch.nan
    with pytest.raises(ClientError, match=r"2 layer\(s\) keep their last mask; '2.weight' .*NaN at \[0, 0\]"):
        sparsifier.refresh_now()
    report = sparsifier.report()
    assert (report.refreshes[-1].failed, report.refreshes[-1].optimal) == (2, False)
    assert list(report.failing) == ["2.weight", "4.weight"]
    assert "4.weight keeps its last mask: scores: NaN at [0, 0]" in str(report)
