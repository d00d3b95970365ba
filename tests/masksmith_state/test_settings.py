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
def test_no_number_of_seconds_overflows_later(settings, name, value, monkeypatch, capsys):
    monkeypatch.setenv(f"MASKSMITH_{name.upper()}", value)
    with pytest.raises(SystemExit) as ended:
        settings.read()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"masksmith: MASKSMITH_{name.upper()}={value}: must be ")
    assert error.count("\n") == 1


def test_the_largest_value_is_named(monkeypatch, capsys):
    monkeypatch.setenv("MASKSMITH_SWEEP_S", f"{MAX_SECONDS * 2}")
    with pytest.raises(SystemExit):
        StateSettings.read()
    assert (
        capsys.readouterr().err
        == "masksmith: MASKSMITH_SWEEP_S=2000000000.0: must be less than or equal to 1000000000\n"
    )
    monkeypatch.setenv("MASKSMITH_SWEEP_S", f"{MAX_SECONDS}")
    assert StateSettings.read().sweep_s == MAX_SECONDS


def test_settings_that_do_not_go_together_show_no_others(monkeypatch, capsys):
    monkeypatch.setenv("MASKSMITH_REDIS_URL", "redis://:secret@host/0")
    monkeypatch.setenv("MASKSMITH_OIDC_ISSUER", "https://login.example.org")
    with pytest.raises(SystemExit):
        SERVICE.read()
    error = capsys.readouterr().err
    assert "oidc_audience" in error
    assert "secret" not in error


@pytest.mark.parametrize("value", ["x", '[{"url": "x"}]', '{"url": "/x"}'])
def test_roots_that_cannot_be_read_are_one_line(value, monkeypatch, capsys):
    monkeypatch.setenv("MASKSMITH_ROOTS", value)
    with pytest.raises(SystemExit):
        StateSettings.read()
    assert "roots" in capsys.readouterr().err.lower()
