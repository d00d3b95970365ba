"""Locations below a path prefix, which only named proxies may give."""

import pytest
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_state.keys import Keys

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


@pytest.mark.parametrize(("root_path", "path"), [("/tools/masks", "/tools/masks"), ("", "/")])
def test_the_session_cookie_is_for_the_prefix_only(settings, records, root_path, path):
    keys = Keys(records.redis)
    token, other = keys.create("ann")[1], keys.create("ben")[1]
    served = settings.model_copy(update={"root_path": root_path})
    with TestClient(create_app(served), base_url="http://localhost") as client:
        answer = client.post(f"{root_path}/v1/session", json={"token": token})
        assert f"; Path={path};" in answer.headers["set-cookie"]
        assert client.get(f"{root_path}/v1/session").json()["name"] == "ann"
        # A browser sends the cookie of an installation at the root, too, behind that of the longer path.
        cookies = [client.cookies["masksmith_session"], client.post("/v1/session", json={"token": other}).cookies]
        both = f"a=b; masksmith_session={cookies[0]}; masksmith_session={cookies[1]['masksmith_session']}"
        client.cookies.clear()
        assert client.get(f"{root_path}/v1/session", headers={"Cookie": both}).json()["name"] == "ann"
        ended = client.delete(f"{root_path}/v1/session", headers={"Cookie": both})
        assert f"; Path={path};" in ended.headers["set-cookie"]
        assert client.get(f"{root_path}/v1/session", headers={"Cookie": both}).status_code == 401
