"""The commands `masksmith backup` and `masksmith restore`, on data directories whose server is not running."""

import json

from masksmith_client.cli.app import run as main


def run(capfd, *arguments):
    code = main([str(each) for each in arguments])
    return code, capfd.readouterr()


def test_keys_survive_in_another_data_directory(tmp_path, capfd, monkeypatch):
    for name in ("MASKSMITH_REDIS_URL", "MASKSMITH_STORE_URL"):
        monkeypatch.delenv(name, raising=False)
    old, new, saved = tmp_path / "old", tmp_path / "new", tmp_path / "saved"
    assert run(capfd, "keys", "create", "ann", "--data", old)[0] == 0
    code, printed = run(capfd, "backup", saved, "--data", old, "--json")
    assert code == 0, printed.err
    assert json.loads(printed.out)["blobs"] == 0
    assert run(capfd, "restore", saved, "--data", new)[0] == 0
    assert "ann" in run(capfd, "keys", "list", "--data", new)[1].out
    code, printed = run(capfd, "restore", saved, "--data", new)
    assert code == 1
    assert "is not empty" in printed.err


def test_a_misspelled_data_directory_is_not_an_empty_installation(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    for command in (["backup", tmp_path / "saved"], ["keys", "list"]):
        code, printed = run(capfd, *command, "--data", tmp_path / "dta")
        assert (code, f"there is no data directory {tmp_path / 'dta'}" in printed.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
