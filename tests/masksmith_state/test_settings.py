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
    assert "MASKSMITH_REDIS_URL='redis://***@host:port/0': port could not be cast" in error
    assert "SECRET" not in error


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
