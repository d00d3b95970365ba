import pytest

from masksmith_service.middleware.addresses import is_address, is_loopback
from masksmith_state.keys import Keys, Quotas, Role, hash_matches, hash_token, key_id_of, redis_key_of


@pytest.fixture
def keys(records):
    return Keys(records.redis)


def test_a_key_is_made_listed_and_revoked(keys):
    assert not keys.any_exist()
    first, _ = keys.create("ann", Role.ADMIN)
    second, _ = keys.create("bob", quotas=Quotas(stored_bytes=10, requests_s=2.5))
    assert [key.name for key in keys.all()] == ["ann", "bob"]
    assert (second.role, second.stored_bytes, second.live_jobs, second.requests_s) == (Role.USER, 10, None, 2.5)
    assert keys.get(second.id) == second
    assert keys.revoke(first.id)
    revoked = keys.get(first.id)
    assert revoked.revoked_at >= revoked.created_at
    assert keys.revoke(first.id)
    assert keys.get(first.id) == revoked
    assert not keys.revoke("nobody")
    assert keys.get("nobody") is None


def test_revoking_the_last_key_does_not_disable_authentication(keys):
    key, _ = keys.create("ann")
    keys.revoke(key.id)
    assert keys.any_exist()


def test_no_token_is_stored(keys, records):
    key, token = keys.create("ann")
    secret = token.rpartition("_")[2] if token.count("_") == 2 else token[15:]
    stored = [str(records.redis.hgetall(name)) for name in records.redis.keys("masksmith:key:*")]
    assert stored
    assert not [text for text in stored if secret in text]
    assert records.redis.hget(redis_key_of(key.id), "hash") == hash_token(token)
    assert token not in repr(key)


def test_only_the_whole_token_is_genuine(keys, records):
    key, token = keys.create("ann")
    fields = records.redis.hgetall(redis_key_of(key.id))
    assert key_id_of(token) == key.id
    assert hash_matches(hash_token(token), fields)
    other = keys.create("bob")[1]
    assert not hash_matches(hash_token(f"msk_{key.id}_{other[15:]}"), fields)
    assert not hash_matches(hash_token(token), {})
    for text in ("", "msk_", token[:-1], token + "x", token.replace("msk", "msq"), token.upper(), "é" * 58):
        assert key_id_of(text) is None


def test_tokens_do_not_repeat(keys):
    assert len({keys.create("x")[1] for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("gpu-box", False), ("localhost.example", False)],
)  # fmt: skip
def test_loopback_addresses(host, loopback):
    assert is_loopback(host) is loopback
    assert is_address(host) is (host[0] in "0123456789:")


@pytest.mark.parametrize("field", ["hash", "old_hash"])
def test_a_stored_hash_that_is_damaged_matches_no_token(keys, records, field):
    key, token = keys.create("ann")
    fields = {**records.redis.hgetall(redis_key_of(key.id)), field: "gr\u00fcn"}
    assert hash_matches(hash_token(token), fields) == (field == "old_hash")


def test_a_key_whose_expiry_has_no_time_zone_is_not_valid(keys, records):
    key, _ = keys.create("ann")
    records.redis.hset(redis_key_of(key.id), "expires_at", "2999-01-01T00:00:00")
    assert keys.get(key.id) is None
