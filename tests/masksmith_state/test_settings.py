"""Settings from the environment: one that is invalid is a line for the user."""

from collections.abc import Callable

import pytest

from masksmith_service.settings import Settings
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import InstallationError
from masksmith_state.settings import MAX_SECONDS, StateSettings, read_settings
from masksmith_worker.settings import Settings as WorkerSettings

AGES = {"upload_age_s", "result_age_s"}
"""Settings that are only compared with times: infinity stands for never."""
SECONDS = [
    (settings, name)
    for settings in (Settings, WorkerSettings)
    for name in settings.model_fields
    if name.endswith("_s") and name not in AGES
]

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Set variables, read settings, check the exit code, and return what standard error has."""

    def read(settings: type[StateSettings], **variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(f"MASKSMITH_{name}", value)
        with pytest.raises(SystemExit) as raised:
            read_settings(settings)
        assert raised.value.code == 2
        return capsys.readouterr().err

    return read


@pytest.mark.parametrize(
    ("settings", "name", "value", "reason"),
    [
        (Settings, "SHARD_BYTES", "-1", "input should be greater than 0"),
        (Settings, "PORT", "abc", "input should be a valid integer, unable to parse string as an integer"),
        (StateSettings, "ROOTS", "x", "is not JSON"),
        (StateSettings, "LOG_LEVEL", "LOUD", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        (StateSettings, "STORE_URL", "ftp://x", "must be a directory or s3://bucket/prefix"),
        (StateSettings, "STORE_URL", "s3://", "must be a directory or s3://bucket/prefix"),
        (StateSettings, "STORE_URL", " ", "must be a directory or s3://bucket/prefix"),
        (StateSettings, "STORE_URL", "s3:/x", "must be a directory or s3://bucket/prefix"),
        (StateSettings, "STORE_URL", "s3://x?y", "it has a query or a fragment"),
        (StateSettings, "STORE_URL", "s3://[x", "the name of its bucket, '[x', has other characters than A-Za-z0-9._-"),
        (Settings, "OIDC_ADMIN", "admins", "must be CLAIM=VALUE"),
        (StateSettings, "OTLP_URL", "x", "must be an address such as http://127.0.0.1:4318"),
        (WorkerSettings, "LEASE_S", "0", "input should be greater than 0"),
    ],
)
def test_a_setting_that_is_invalid_is_named_with_its_value(
    refused: Refused, settings: type[StateSettings], name: str, value: str, reason: str
) -> None:
    assert refused(settings, **{name: value}) == f"masksmith: MASKSMITH_{name}={value!r}: {reason}\n"


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("", "must be an address such as https://s3.example.org, or not be set"),
        ("s3.example.org:9000", "must be an address such as https://s3.example.org, or not be set"),
        ("http://[", "must be an address such as https://s3.example.org, or not be set"),
        ("http://127.0.0.1:9000", "an address without TLS needs AWS_ALLOW_HTTP=true"),
        ("HTTP://127.0.0.1:9000", "an address without TLS needs AWS_ALLOW_HTTP=true"),
    ],
)
def test_an_endpoint_at_which_no_request_can_succeed_is_named(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, endpoint: str, reason: str
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert read_settings(StateSettings).store_url == "masksmith-data/store"
    for setting in ({"STORE_URL": "s3://bucket"}, {"ROOTS": '[{"url": "s3://bucket"}]'}):
        monkeypatch.delenv("MASKSMITH_STORE_URL", raising=False)
        assert refused(StateSettings, **setting) == f"masksmith: AWS_ENDPOINT_URL={endpoint!r}: {reason}\n"


def test_settings_of_a_bucket_that_cannot_be_read_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "perhaps")
    with pytest.raises(InstallationError, match=r"^the bucket s3://bucket .* AWS_.*\"perhaps\" as boolean$"):
        BlobStore("s3://bucket")


def test_a_password_is_not_printed(refused: Refused) -> None:
    error = refused(StateSettings, REDIS_URL="redis://ann:SECRET@host:port/0")
    assert "MASKSMITH_REDIS_URL='redis://***@host:port/0': has a port that is no number" in error
    assert "SECRET" not in error


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://h/prod", "has the database 'prod', which is no number"),
        ("redis://h/1x", "has the database '1x', which is no number"),
        ("redis://h/1/2", "has the database '1/2', which is no number"),
        ("redis://h/-1", "has the database '-1', which is no number"),
        ("rediss://h/prod", "has the database 'prod', which is no number"),
        ("unix:///a.sock?db=x", "invalid value for 'db'"),
        ("unix:///a.sock?db=-1", "has the database '-1', which is no number"),
        ("unix:///a.sock?db=1&db=2", "has the option 'db' twice"),
        ("redis://h/0?db=3", "has the option 'db', which is not supported"),
        ("redis://h/0?socket_timeout=3", "has the option 'socket_timeout', which is not supported"),
        ("unix:///a.sock?socket_timeout=3", "has the option 'socket_timeout', which is not supported"),
        ("redis://SECRET@h/0", "has a user without a password"),
        ("redis://h/0#1", "has a fragment"),
        ("redis://:a#SECRET@h/0", "has a fragment"),
        ("redis://a:1/SECRET@h/0", "has an @ after the host"),
        ("redis://:a?SECRET@h/0", "has a port that is no number from 1"),
        ("redis://a:1?SECRET@h/0", "has an @ after the host"),
        ("redis://h:0/0", "has a port that is no number from 1"),
        ("redis://:SECRET/x@h:1/0", "has a port that is no number from 1"),
        ("unix://run/a.sock", "must have the absolute path of a socket"),
        ("unix://", "must have the absolute path of a socket"),
    ],
)
def test_no_part_of_the_brokers_url_is_ignored(refused: Refused, url: str, reason: str) -> None:
    error = refused(StateSettings, REDIS_URL=url)
    assert error.startswith("masksmith: MASKSMITH_REDIS_URL=")
    assert f": {reason}" in error
    assert "SECRET" not in error


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://h/", "redis://:p%23@h:1/15", "redis://u:@h", "rediss://u:p@[::1]:1/0?ssl_cert_reqs=none",
     "unix:///a.sock", "unix://u:p@/a.sock?db=3", "unix:///a.sock?username=u&password=p", "unix://u@/a.sock?password=p"],
)  # fmt: skip
def test_urls_of_the_broker_that_redis_and_celery_read_alike(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MASKSMITH_REDIS_URL", url)
    assert read_settings(StateSettings).redis_url == url


def test_levels_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSMITH_LOG_LEVEL", "debug")
    assert read_settings(StateSettings).log_level == "DEBUG"


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e300", "soon"])
@pytest.mark.parametrize(("settings", "name"), SECONDS, ids=lambda part: getattr(part, "__module__", part))
def test_no_number_of_seconds_overflows_later(
    refused: Refused, settings: type[StateSettings], name: str, value: str
) -> None:
    variable = name.upper()
    error = refused(settings, **{variable: value})
    assert error.startswith(f"masksmith: MASKSMITH_{variable}={value!r}: input should be ")
    assert error.count("\n") == 1


def test_the_largest_value_is_named(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(StateSettings, SWEEP_S=f"{MAX_SECONDS * 2}")
    assert error.endswith("input should be less than or equal to 1000000000\n")
    monkeypatch.setenv("MASKSMITH_SWEEP_S", f"{MAX_SECONDS}")
    assert read_settings(StateSettings).sweep_s == MAX_SECONDS


def test_settings_that_contradict_each_other_show_no_others(refused: Refused) -> None:
    error = refused(Settings, REDIS_URL="redis://:secret@host/0", OIDC_ISSUER="https://login.example.org")
    assert "MASKSMITH_OIDC_AUDIENCE" in error
    assert "secret" not in error


@pytest.mark.parametrize("value", ["x", '[{"url": "x"}]', '{"url": "/x"}', '[{"url": "/models", "reed": ["*"]}]'])
def test_roots_that_cannot_be_read_are_named(refused: Refused, value: str) -> None:
    assert refused(StateSettings, ROOTS=value).startswith("masksmith: MASKSMITH_ROOTS")
