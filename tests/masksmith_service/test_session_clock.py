"""Sessions of browsers after the clock of the broker was set back."""

import pytest

from masksmith_service.auth import sessions
from masksmith_state.keys import Keys

DAY_S = 86_400


@pytest.fixture
def log_in(client, records):
    """Log in with a key that is the same for all calls; returns the header with the cookie of the session."""
    _, token = Keys(records.redis).create("ann")

    def log_in():
        client.cookies.clear()
        response = client.post("/v1/session", json={"token": token})
        client.cookies.clear()
        return {"Cookie": f"masksmith_session={response.cookies['masksmith_session']}"}

    return log_in


def test_a_session_lives_no_longer_than_one_that_begins_when_it_is_used(client, settings, records, log_in):
    cookie = log_in()
    (session,) = records.redis.keys("masksmith:session:*")
    before = records.redis.ttl(session)
    assert client.get("/v1/session", headers=cookie).json()["name"] == "ann"
    assert before - 60 < records.redis.ttl(session) <= before
    records.redis.expire(session, int(settings.session_s) + DAY_S)
    assert client.get("/v1/session", headers=cookie).json()["name"] == "ann"
    assert 0 < records.redis.ttl(session) <= settings.session_s


def test_a_login_beyond_the_limit_ends_the_oldest_session_and_not_itself(client, records, log_in, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    cookies = [log_in(), log_in()]
    (sessions_of_key,) = records.redis.keys("masksmith:sessions:*")
    for session in records.redis.zrange(sessions_of_key, 0, -1):
        records.redis.zincrby(sessions_of_key, DAY_S, session)
    cookies += [log_in()]
    assert [client.get("/v1/session", headers=cookie).status_code for cookie in cookies] == [401, 200, 200]
    cookies += [log_in()]
    assert [client.get("/v1/session", headers=cookie).status_code for cookie in cookies] == [401, 401, 200, 200]
