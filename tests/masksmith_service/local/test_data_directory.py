import errno
from pathlib import Path

import pytest
from support.data_directories import held

from masksmith_client.cli.app import run
from masksmith_service.local.data_directory import DataDirectory
from masksmith_service.local.errors import UsageError
from masksmith_state import DATA_FORMAT


class TestDataDirectory:
    def test_the_data_directory_is_private_and_locked(self, tmp_path: Path) -> None:
        with held(tmp_path / "data") as directory:
            assert directory.path.stat().st_mode & 0o777 == 0o700
            directory.write_holder("http://somewhere, process 12")
            with pytest.raises(UsageError, match=r"in use by another .* \(http://somewhere, process 12\)"):
                DataDirectory(tmp_path / "data")
        with held(tmp_path / "data"):
            pass

    def test_a_foreign_directory_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(UsageError, match="not a data directory of masksmith"):
            DataDirectory(tmp_path)

    @pytest.mark.parametrize(
        ("stamp", "advice"), [("99", "upgrade masksmith"), ("1", "that wrote it"), ("\xff", "wrote")]
    )
    def test_another_format_says_what_to_do(self, tmp_path: Path, stamp: str, advice: str) -> None:
        with held(tmp_path):
            pass
        (tmp_path / "format").write_text(stamp, "latin-1")
        with pytest.raises(UsageError, match=advice):
            DataDirectory(tmp_path)

    def test_a_first_start_that_was_killed_can_be_repeated(self, tmp_path: Path) -> None:
        (tmp_path / "lock").touch()
        (tmp_path / "format").touch()
        with held(tmp_path):
            assert (tmp_path / "format").read_text().strip() == str(DATA_FORMAT)
        (tmp_path / "format").write_text("")
        with pytest.raises(UsageError, match="holds other files"):
            DataDirectory(tmp_path)

    def test_a_file_is_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot be used"):
            DataDirectory(tmp_path / "file")

    def test_a_full_disk_leaves_no_format(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def write_text(path: Path, text: str) -> None:
            path.touch()
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as context:
            context.setattr(Path, "write_text", write_text)
            with pytest.raises(
                UsageError, match=r"data cannot be used: No space left on device; name another with --data"
            ):
                DataDirectory(tmp_path / "data")
        with held(tmp_path / "data"):
            pass

    def test_large_logs_are_moved_aside(self, tmp_path: Path) -> None:
        with held(tmp_path) as directory:
            log = directory.prepare_log("service")
            with log.open("wb") as file:
                file.truncate(17 * 2**20)
            assert not directory.prepare_log("service").exists()
            assert (directory.logs / "service.log.1").exists()

    def test_a_second_up_is_one_line_and_exit_code_two(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        with held(tmp_path):
            assert run(["up", "--data", str(tmp_path), "--port", "0"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
