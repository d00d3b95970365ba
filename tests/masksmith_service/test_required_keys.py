"""When requests need a key."""

import pytest
from starlette.testclient import TestClient

from masksmith_service.__main__ import main
from masksmith_service.app import create_app
from masksmith_state.keys import Keys


def test_keys_are_required_unless_it_is_said(settings):
    with TestClient(create_app(settings.model_copy(update={"auth": "required"}))) as client:
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/healthz").status_code == 200
    assert type(settings).model_fields["auth"].default == "required"


def test_a_broker_that_loses_its_keys_does_not_disable_authentication(client, settings, records):
    Keys(records.redis).create("ann")
    assert client.get("/v1/session").status_code == 401
    for name in records.redis.keys("masksmith:key*"):
        records.redis.delete(name)
    assert client.get("/v1/session").status_code == 401
    with TestClient(create_app(settings.model_copy(update={"auth": "required"}))) as other:
        assert other.get("/v1/session").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP"]
    + [f"X-Forwarded-{word}" for word in ("For", "Host", "Proto", "Port", "Prefix", "User")],
)
def test_a_forwarded_request_is_never_local(client, header):
    assert client.get("/v1/jobs").status_code == 200
    assert client.get("/v1/jobs", headers={header: "127.0.0.1"}).status_code == 401


def test_none_is_refused_beyond_loopback(monkeypatch, caplog, valkey, tmp_path):
    for name, value in {"AUTH": "none", "HOST": "0.0.0.0", "REDIS_URL": valkey.url, "STORE_URL": str(tmp_path)}.items():
        monkeypatch.setenv(f"MASKSMITH_{name}", value)
    monkeypatch.setattr("masksmith_state.settings.StateSettings.configure_logging", lambda self: None)
    monkeypatch.setattr("masksmith_service.__main__.serve", lambda settings: 1 / 0)
    monkeypatch.setattr("masksmith_service.__main__.protect_files", lambda: None)
    assert main() == 2
    assert "MASKSMITH_AUTH=none" in caplog.text
