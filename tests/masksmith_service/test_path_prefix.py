"""Locations below a path prefix, which only named proxies may give."""

import pytest
from starlette.testclient import TestClient

from masksmith_service.app import create_app

PROXY = ("10.1.2.3", 4000)


def location(settings, good, peer=PROXY, path="/v1/masks", **headers):
    with TestClient(create_app(settings), client=peer) as client:
        response = client.post(path, params={"pattern": "2:4"}, content=good, headers=headers)
        assert response.status_code == 202, response.text
        return response.headers["location"].removesuffix(response.json()["id"])


@pytest.fixture
def given(settings):
    return settings.model_copy(
        update={"trusted_proxies": "10.0.0.0/8, 127.0.0.1", "allowed_hosts": "*", "insecure": True}
    )


@pytest.mark.parametrize(
    ("peer", "prefix", "expected"),
    [
        (PROXY, "/tools/masks", "/tools/masks/v1/jobs/"),
        (PROXY, "/tools/masks/", "/tools/masks/v1/jobs/"),
        (("192.168.0.7", 4000), "/tools/masks", "/v1/jobs/"),
        (PROXY, "//evil.example", "/v1/jobs/"),
        (PROXY, "https://evil.example", "/v1/jobs/"),
        (PROXY, "", "/v1/jobs/"),
    ],
)
def test_a_prefix_counts_from_named_proxies_only(given, good, peer, prefix, expected):
    assert location(given, good, peer, **{"X-Forwarded-Prefix": prefix}) == expected


def test_a_proxy_may_leave_the_prefix_in_the_path(given, good):
    kept = given.model_copy(update={"root_path": "/tools/masks"})
    assert location(kept, good, path="/tools/masks/v1/masks") == "/tools/masks/v1/jobs/"
    assert location(kept, good, **{"X-Forwarded-Prefix": "/other"}) == "/tools/masks/v1/jobs/"
