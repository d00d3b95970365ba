"""What the start of an installation takes from the responses at the service's address."""

import httpx2
import pytest

from masksmith_service.local.start import _progress


def progress(status, content):
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, content=content))
    with httpx2.Client(base_url="http://127.0.0.1:8000", transport=transport) as client:
        return _progress(client, 2)


def test_a_start_ends_when_all_workers_are_ready():
    assert progress(200, b'{"status": "ok", "workers": 1}') == "workers 1 of 2: others are starting"
    assert progress(200, b'{"status": "ok", "workers": 2}') is None


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"workers": "many"}', b"\xff"])
def test_another_program_at_the_address_of_the_service_is_named(status, content):
    text = progress(status, content)
    assert text.startswith(f"http://127.0.0.1:8000/readyz answered {status} ")
    assert text.endswith("which is no response of masksmith")
