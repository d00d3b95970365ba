"""Tokens of an OpenID Connect issuer: who is let in, whose data they see, and which tokens are refused."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from pydantic import ValidationError
from starlette.testclient import TestClient
from support.issuer import LocalIssuer

from masksmith_service.app import create_app
from masksmith_service.auth import issuer_keys
from masksmith_service.auth.principal import Principal, is_valid
from masksmith_service.settings import Settings
from masksmith_state.keys import Keys, Quotas, Role
from masksmith_state.roots.setting import RootSetting

WEIGHTS = safetensors.numpy.save({"w": np.ones((8, 8), np.float32)})


@pytest.fixture
def issuer():
    issuer = LocalIssuer()
    yield issuer
    issuer.stop()


@pytest.fixture
def client(settings, issuer):
    changes = {"oidc_issuer": issuer.url, "oidc_audience": "masksmith", "oidc_admin": "groups=masksmith-admins"}
    with TestClient(create_app(settings.model_copy(update=changes)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def keys(records):
    """A service with a key, so that nobody is let in without one."""
    return Keys(records.redis).create("bob")


def get(client, token, path="/v1/session"):
    return client.get(path, headers={"Authorization": f"Bearer {token}"})


def submit(client, token):
    response = client.post(
        "/v1/masks", params={"pattern": "2:4"}, content=WEIGHTS, headers={"Authorization": f"Bearer {token}"}
    )
    assert response.status_code == 202, response.text
    return response.json()["id"]


def test_a_sender_is_the_subject_of_the_issuers_token(client, issuer, keys):
    session = get(client, issuer.token(preferred_username="Ann A.")).json()
    assert (session["name"], session["role"]) == ("Ann A.", "user")
    assert session["key"].startswith("oidc-")
    assert session["key"] == get(client, issuer.token(email="new@example.org")).json()["key"]
    assert session["key"] != get(client, issuer.token(sub="eve")).json()["key"]


def test_a_user_of_the_issuer_gets_no_record_of_a_key(client, issuer, keys, records):
    info, token = keys
    assert get(client, token).is_success
    assert get(client, issuer.token()).is_success
    assert records.redis.keys("masksmith:key:*") == [f"masksmith:key:{info.id}"]
    assert Keys(records.redis).get(info.id).last_used_at is not None


def test_a_sender_sees_only_own_jobs(client, issuer, keys):
    _, key_token = keys
    job = submit(client, issuer.token())
    assert get(client, issuer.token(), f"/v1/jobs/{job}").status_code == 200
    for other in (issuer.token(sub="eve"), key_token):
        assert get(client, other, f"/v1/jobs/{job}").status_code == 404
    assert get(client, issuer.token(), "/v1/keys").status_code == 403


def test_a_name_that_an_issuers_user_chose_gives_no_right(settings, issuer, records, tmp_path):
    rights = {"url": str(tmp_path), "read": ["ann"]}
    changes = {"oidc_issuer": issuer.url, "oidc_audience": "masksmith", "roots": [RootSetting(**rights)]}
    token, where = issuer.token(preferred_username="ann"), f"/v1/references?location={tmp_path}/model"
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        assert get(client, token, where).json()["code"] == "forbidden"
        key = get(client, token).json()["key"]
    changes["roots"] = [RootSetting(**rights | {"read": [key]})]
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        assert get(client, token, where).json()["code"] == "reference_not_found"


@pytest.mark.parametrize("groups", ["masksmith-admins", ["users", "masksmith-admins"]])
def test_a_claim_of_the_token_makes_its_sender_an_admin(client, issuer, keys, groups):
    job = submit(client, issuer.token())
    admin = issuer.token(sub="root", groups=groups)
    assert get(client, admin).json()["role"] == "admin"
    assert get(client, admin, f"/v1/jobs/{job}").status_code == 200
    assert get(client, admin, "/v1/keys").status_code == 200


def test_keys_go_on_beside_the_issuer(client, issuer, keys):
    info, token = keys
    assert get(client, token).json()["key"] == info.id
    assert not issuer.fetched


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another service"},
        {"aud": None},
        {"iss": "https://another.example.org"},
        {"iss": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["ann"]},
        {"sub": "\ud800"},
        pytest.param({"exp": 10**400}, id="exp beyond floats"),
    ],
    ids=str,
)
def test_claims_that_are_not_for_us_are_refused(client, issuer, keys, changes):
    check_refused(get(client, issuer.token(**changes)))


def test_a_token_whose_claims_are_nested_too_deeply_is_refused(client, issuer, keys):
    check_refused(get(client, issuer.token(claims_text='{"sub":' + "[" * 5000 + "]" * 5000 + "}")))


def test_only_signatures_of_the_issuers_keys_count(client, issuer, keys):
    good = issuer.token()
    head, claims, signature = good.split(".")
    other = LocalIssuer()
    forged = [
        issuer.token_without_signature(),
        issuer.token_with_secret(b"s" * 32, "secret"),
        issuer.token(header={"kid": "unknown"}),
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}.{claims}.",
        f"{head}.{other.token(sub='root').split('.')[1]}.{signature}",
        other.token(iss=issuer.url),
        "a.b.c",
        "..",
        "not a token",
    ]
    other.stop()
    for token in forged:
        check_refused(get(client, token))
    assert get(client, good).status_code == 200


@pytest.mark.parametrize("members", [{}, {"use": "sig"}, {"alg": "EdDSA"}, {"alg": "of the curve"}], ids=str)
@pytest.mark.parametrize(
    ("curve", "algorithm"),
    [("Ed25519", "EdDSA"), ("Ed25519", "Ed25519"), ("Ed448", "EdDSA"), ("Ed448", "Ed448")],
)
def test_signatures_of_edwards_curves_count_under_both_names(client, issuer, keys, curve, algorithm, members):
    issuer.rotate_to_curve(curve, **members | ({"alg": curve} if members.get("alg") == "of the curve" else {}))
    assert get(client, issuer.token(header={"alg": algorithm})).status_code == 200
    wrong_curve = "Ed448" if curve == "Ed25519" else "Ed25519"
    check_refused(get(client, issuer.token(header={"alg": wrong_curve})))


def check_refused(response):
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("unknown", [{"kty": "EC", "crv": "zz", "x": "AA", "y": "AA"}, {"kty": "zz"}, "text", None, {}])
def test_a_key_of_an_unknown_kind_does_not_keep_others_from_being_used(client, issuer, keys, unknown):
    issuer.documents["/realm/keys"]["keys"].insert(0, unknown)
    assert get(client, issuer.token()).is_success


def test_new_keys_are_fetched_once_in_a_while(client, issuer, keys, monkeypatch):
    assert get(client, issuer.token()).status_code == 200
    issuer.rotate("second")
    for _ in range(3):
        check_refused(get(client, issuer.token()))
    assert issuer.fetched["/realm/keys"] == 1
    monkeypatch.setattr(issuer_keys, "FETCH_PAUSE_S", 0.0)
    assert get(client, issuer.token()).status_code == 200


def test_a_key_that_the_issuer_withdraws_ends(client, issuer, keys, monkeypatch):
    token = issuer.token()
    assert get(client, token).status_code == 200
    issuer.rotate("second")
    monkeypatch.setattr(issuer_keys, "KEYS_AGE_S", 0.0)
    monkeypatch.setattr(issuer_keys, "FETCH_PAUSE_S", 0.0)
    check_refused(get(client, token))


def test_an_issuer_that_is_down_is_asked_once_in_a_while(client, issuer, keys):
    documents = dict(issuer.documents)
    issuer.documents.clear()
    for token in ("a.b.c", issuer.token(), "d.e.f"):
        assert get(client, token).json()["code"] == "issuer_unavailable"
    issuer.documents |= documents
    assert get(client, issuer.token()).json()["code"] == "issuer_unavailable"
    assert sum(issuer.fetched.values()) == 1


def test_requests_at_once_share_a_fetch(issuer):
    async def update(count):
        known = issuer_keys.IssuerKeys(issuer.url)
        return await asyncio.gather(*(known.update() for _ in range(count)))

    assert asyncio.run(update(5)) == [True] * 5
    issuer.documents.clear()
    assert asyncio.run(update(5)) == [False] * 5
    assert issuer.fetched == {"/realm/.well-known/openid-configuration": 2, "/realm/keys": 1}


def test_old_keys_serve_for_a_day_while_the_issuer_is_down(client, issuer, keys, monkeypatch):
    token = issuer.token()
    assert get(client, token).status_code == 200
    documents = dict(issuer.documents)
    issuer.documents.clear()
    monkeypatch.setattr(issuer_keys, "KEYS_AGE_S", 0.0)
    monkeypatch.setattr(issuer_keys, "FETCH_PAUSE_S", 0.0)
    assert get(client, token).status_code == 200
    assert get(client, "a.b.c").json()["code"] == "issuer_unavailable"
    monkeypatch.setattr(issuer_keys, "MAX_KEYS_AGE_S", 0.0)
    assert get(client, token).json()["code"] == "issuer_unavailable"
    monkeypatch.setattr(issuer_keys, "MAX_KEYS_AGE_S", 60.0)
    issuer.documents |= documents
    assert get(client, token).status_code == 200


def test_a_slow_issuer_holds_a_request_for_seconds_only(monkeypatch, caplog):
    async def never_ends(issuer):
        await asyncio.sleep(600)

    monkeypatch.setattr(issuer_keys, "_fetch_key_set", never_ends)
    monkeypatch.setattr(issuer_keys, "FETCH_TIMEOUT_S", 0.01)
    keys = issuer_keys.IssuerKeys("https://login.example.org")
    assert not asyncio.run(keys.update())
    assert keys.has_fetch_failed
    assert caplog.messages == ["the keys of issuer https://login.example.org cannot be fetched: TimeoutError"]


def test_a_long_response_ends_with_its_token(client, issuer):
    sender = Principal("oidc-0", "ann", Role.USER, Quotas(), token_expires_at=time.time() + 60)
    assert asyncio.run(is_valid(None, sender))
    assert not asyncio.run(is_valid(None, replace(sender, token_expires_at=time.time() - 1)))


def test_an_issuers_token_begins_no_session(client, issuer, keys):
    check_refused(client.post("/v1/session", json={"token": issuer.token()[:200]}))


@pytest.mark.parametrize("fault", ["gone", "another name", "keys elsewhere", "no keys", "no object", "too large"])
def test_an_issuer_without_keys_authenticates_nobody(client, issuer, keys, fault):
    documents = issuer.documents
    if fault == "gone":
        documents.clear()
    elif fault == "another name":
        issuer.discovery["issuer"] = "https://another.example.org"
    elif fault == "keys elsewhere":
        issuer.discovery["jwks_uri"] = "ftp://127.0.0.1/keys"
    else:
        documents["/realm/keys"] = {"no keys": {}, "no object": [1], "too large": {"keys": ["x" * 2**21]}}[fault]
    response = get(client, issuer.token())
    assert (response.status_code, response.json()["code"]) == (503, "issuer_unavailable")
    assert response.headers["retry-after"]
    assert get(client, keys[1]).status_code == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oidc_issuer": "http://login.example.org", "oidc_audience": "x"}, "must be an https:// address"),
        (
            {"oidc_issuer": "https://login.example.org?x=1", "oidc_audience": "x"},
            "without a user name, spaces and a query",
        ),
        ({"oidc_issuer": "https://"}, "must be an https:// address"),
        ({"oidc_issuer": "https://login.example.org:x"}, "must be an https:// address"),
        ({"oidc_issuer": "https://login.example.org/a b"}, "must be an https:// address"),
        ({"oidc_issuer": "https://ann@login.example.org"}, "must be an https:// address"),
        ({"oidc_issuer": "https://login.example.org"}, "MASKSMITH_OIDC_AUDIENCE"),
        ({"oidc_issuer": "https://login.example.org", "oidc_audience": " "}, "spaces"),
        ({"oidc_audience": "x"}, "need MASKSMITH_OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example.org", "oidc_audience": "x", "oidc_admin": "a =b"}, "CLAIM=VALUE"),
        ({"oidc_issuer": "https://login.example.org", "oidc_audience": "x", "oidc_admin": "admins"}, "CLAIM=VALUE"),
    ],
)
def test_settings_that_would_let_others_in_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Settings(**changes)


def test_no_secret_is_in_the_error_of_a_setting():
    changes = {
        "redis_url": "redis://:SECRET@h/0",
        "oidc_issuer": "http://u:SECRET@evil",
        "roots": [{"url": "s3://k:SECRET@b"}],
    }
    for names in (["redis_url", "oidc_issuer"], ["roots"]):
        with pytest.raises(ValidationError) as caught:
            Settings(**{name: changes[name] for name in names})
        assert "SECRET" not in str(caught.value)
