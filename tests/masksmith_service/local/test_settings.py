"""What local commands read from environment variables."""

import sys
from pathlib import Path

import pytest

from masksmith_client.cli.app import run
from masksmith_service.local import settings


@pytest.mark.parametrize(
    ("visible", "count"),
    [("", 0), ("-1", 0), ("0", 1), ("0,1", 2), (" 1 , 0 ", 2), ("0,-1,1", 1), ("GPU-8932f937,1", 2)],
)
def test_gpus_after_one_that_does_not_exist_are_not_visible(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert settings.visible_gpu_count() == count


@pytest.mark.parametrize(
    ("option", "variable", "data", "expected"),
    [
        ("s3://a/b", "/var", None, "s3://a/b"),
        (None, "/var", "/data", "/var"),
        (None, "/var", None, "/var"),
        (None, "", "/data", "/data/store"),
        (None, "", None, "/home/masksmith/store"),
    ],
)
def test_the_store_of_an_installation_is_that_of_up(monkeypatch, option, variable, data, expected):
    monkeypatch.setenv("MASKSMITH_STORE_URL", variable)
    monkeypatch.setenv("XDG_DATA_HOME", "/home")
    assert settings.store_location(option, None if data is None else Path(data)) == expected


@pytest.mark.parametrize("command", [["fsck"], ["backup", "saved"], ["restore", "saved"]])
def test_a_data_directory_and_a_store_exclude_each_other(capfd, command):
    assert run([*command, "--data", "/data", "--store-url", "s3://a/b"]) == 2
    assert "--data and --store-url exclude each other" in capfd.readouterr().err


def test_fsck_of_a_data_directory_checks_the_store_of_the_environment(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MASKSMITH_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setattr("os.execve", _run_instead)
    run(["fsck", "--data", str(tmp_path / "data")])
    assert capfd.readouterr().out == f"{tmp_path / 'store'}\n"


def _run_instead(path, command, environment):
    """Print the store, in place of replacing the process of the tests."""
    sys.stdout.write(environment["MASKSMITH_STORE_URL"] + "\n")
