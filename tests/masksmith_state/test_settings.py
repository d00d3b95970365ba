"""Settings that are not valid end a process with one line for each, without a traceback."""

import pytest

import masksmith_service.settings
import masksmith_worker.settings
from masksmith_state.settings import MAX_SECONDS, StateSettings

SERVICE, WORKER = masksmith_service.settings.Settings, masksmith_worker.settings.Settings
AGES = {"upload_age_s", "result_age_s"}
"""Settings that are only compared with times: infinity stands for never."""
SECONDS = [
    (settings, name)
    for settings in (SERVICE, WORKER)
    for name in settings.model_fields
    if name.endswith("_s") and name not in AGES
]


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e300", "soon"])
@pytest.mark.parametrize(("settings", "name"), SECONDS, ids=lambda part: getattr(part, "__module__", part))
def test_no_number_of_seconds_overflows_later(settings, name, value, monkeypatch):
    monkeypatch.setenv(f"MASKSMITH_{name.upper()}", value)
    with pytest.raises(SystemExit) as ended:
        settings.from_environment()
    assert ended.value.code.startswith(f"refusing to start: MASKSMITH_{name.upper()}={value!r}: Input should be ")
    assert "\n" not in ended.value.code


def test_the_largest_value_is_named(monkeypatch):
    monkeypatch.setenv("MASKSMITH_SWEEP_S", f"{MAX_SECONDS * 2}")
    with pytest.raises(
        SystemExit, match=r"=.2000000000\.0.: Input should be less than or equal to 10*$"
    ):
        StateSettings.from_environment()
    monkeypatch.setenv("MASKSMITH_SWEEP_S", f"{MAX_SECONDS}")
    assert StateSettings.from_environment().sweep_s == MAX_SECONDS


def test_settings_that_do_not_go_together_show_no_others(monkeypatch):
    monkeypatch.setenv("MASKSMITH_REDIS_URL", "redis://:secret@host/0")
    monkeypatch.setenv("MASKSMITH_OIDC_ISSUER", "https://login.example.org")
    with pytest.raises(SystemExit, match="oidc_audience") as ended:
        SERVICE.from_environment()
    assert "secret" not in ended.value.code


@pytest.mark.parametrize("value", ["x", '[{"url": "x"}]', '{"url": "/x"}'])
def test_roots_that_cannot_be_read_are_one_line(value, monkeypatch):
    monkeypatch.setenv("MASKSMITH_ROOTS", value)
    with pytest.raises(SystemExit, match=r"^refusing to start: MASKSMITH_ROOTS"):
        StateSettings.from_environment()
