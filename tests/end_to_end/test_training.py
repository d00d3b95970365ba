"""Training against a real installation: its masks are the best, and its death does no harm."""

import time

import pytest
import torch
from support.training_loop import perceptron, train

import masksmith as ms
from masksmith_client import Client, RetryPolicy
from masksmith_client.training import Refresh, Sparsifier, StraightThrough

PATTERN = "transposable 4:8"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_death_of_the_service_neither_stops_nor_corrupts_training(stack, poll, caplog):
    model = perceptron(width=64)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    client = Client(stack.url, retry=RetryPolicy(retries=1, outage_s=0.3))
    with Sparsifier(model, PATTERN, client, Refresh(every=5), StraightThrough()) as sparsifier:

        def go_on(until):
            def done():
                train(model, optimizer, sparsifier, 5)
                assert all(ms.verify(mask, PATTERN) for mask in sparsifier.masks.values())
                time.sleep(0.02)
                return until(sparsifier.report())

            poll(done)

        go_on(lambda report: len(report.refreshes) >= 3)
        stack.service.kill()
        stack.service.wait()
        go_on(lambda report: report.trouble is not None)
        last = sparsifier.masks
        train(model, optimizer, sparsifier, 20)
        assert all(torch.equal(mask, last[name]) for name, mask in sparsifier.masks.items())
        assert all(weight.isfinite().all() for weight in model.parameters())

        stack.start_service()
        count = len(sparsifier.report().refreshes)
        go_on(lambda report: len(report.refreshes) >= count + 2)
        sparsifier.refresh_now()
        report = sparsifier.report()
        assert report.trouble is None
        assert report.outages == 1
        assert all(record.optimal for record in report.refreshes)
        for name, mask in sparsifier.masks.items():
            dense = model.get_submodule(name.removesuffix(".weight")).parametrizations.weight.original.detach()
            assert torch.equal(mask, ms.solve(ms.magnitude(dense), PATTERN).mask)
    told = [record.message for record in caplog.records if record.name == "masksmith_client.training"]
    # How soon masks come depends on the machine.
    told = [message for message in told if not message.startswith(("no masks yet", "the masks requested"))]
    assert len(told) == 2
    assert "no masksmith service answers" in told[0]
    assert told[1] == "masks are refreshed again"
