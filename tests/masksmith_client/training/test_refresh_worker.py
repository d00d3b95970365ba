"""What the refresh process is started with."""

import httpx2
import numpy as np
import pytest

import masksmith as ms
from masksmith_client import Client, RetryPolicy
from masksmith_client.training.refresh_worker.shared_memory import LayerSlot
from masksmith_client.training.refresh_worker.sources import (
    OUTAGE_S,
    FunctionSource,
    ServiceSource,
    WorkerConfiguration,
)

SLOT = LayerSlot("a", "F32", (4, 4))


def sent(client):
    start = WorkerConfiguration(client=client, slots=[SLOT], fd=5, cores=[0])
    return WorkerConfiguration.model_validate_json(start.model_dump_json())


@pytest.mark.parametrize("outage_s", [1.0, 500.0])
def test_a_client_is_made_again_from_what_was_sent(outage_s):
    retry = RetryPolicy(retries=7, first_s=0.25, outage_s=outage_s)
    with Client("https://masks.example/prefix/", "secret", timeout_s=9.0, retry=retry) as client:
        start = sent(client.configuration)
    assert (start.slots, start.fd, start.cores) == ([SLOT], 5, [0])
    assert start.client == client.configuration
    assert "secret" not in repr(start)
    source = start.create_source()
    assert isinstance(source, ServiceSource)
    again = source.client.configuration
    assert (again.url, again.token, again.timeout_s) == ("https://masks.example/prefix", "secret", 9.0)
    assert (again.retry.retries, again.retry.first_s) == (7, 0.25)
    assert again.retry.outage_s == min(outage_s, OUTAGE_S)
    source.client.close()


def test_without_a_client_the_library_solves():
    source = sent(None).create_source()
    assert isinstance(source, FunctionSource)
    assert np.array_equal(source.call(np.eye(4), ms.parse("1:4")).mask, np.eye(4, dtype=bool))


def test_a_client_with_a_transport_of_its_own_cannot_be_made_again():
    with Client("http://service", transport=httpx2.MockTransport(lambda _: httpx2.Response(404))) as client:
        assert client.configuration is None
