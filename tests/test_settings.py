from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from predis import settings
from predis.errors import InvalidSetting
from predis.settings import Environment, Settings, describe, load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, where a `predis.toml` is looked for."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "predis.toml") -> Path:
    file = folder / name
    file.write_text(text, "utf-8")
    return file


class TestPrecedence:
    def test_defaults(self, folder: Path) -> None:
        assert load(environ={}) == Settings(home=folder / ".predis")

    def test_a_file_goes_over_defaults(self, folder: Path) -> None:
        write(folder, "workers = 3\n")
        assert load(environ={}).workers == 3

    def test_the_environment_goes_over_the_file(self, folder: Path) -> None:
        write(folder, "workers = 3\nmax_pending = 9\n")
        found = load(environ={"PREDIS_WORKERS": "4"})
        assert (found.workers, found.max_pending) == (4, 9)

    def test_flags_go_over_everything(self, folder: Path) -> None:
        write(folder, "workers = 3\n")
        assert load({"workers": 5}, environ={"PREDIS_WORKERS": "4"}).workers == 5

    def test_flags_not_given_are_ignored(self) -> None:
        assert load({"workers": None}, environ={"PREDIS_WORKERS": "4"}).workers == 4

    def test_a_file_may_be_named(self, folder: Path) -> None:
        write(folder, "workers = 3\n")
        named = write(folder, "workers = 7\n", "other.toml")
        assert load(environ={"PREDIS_CONFIG": str(named)}).workers == 7
        assert load(environ={}, config=named).workers == 7

    def test_the_process_s_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREDIS_WORKERS", "6")
        assert load().workers == 6


class TestValues:
    @pytest.mark.parametrize("text", ["1", "true", "TRUE", " yes ", "on"])
    def test_true(self, text: str) -> None:
        assert load(environ={"PREDIS_INSECURE": text}).insecure is True

    @pytest.mark.parametrize("text", ["0", "false", "No", "off"])
    def test_false(self, text: str) -> None:
        assert load(environ={"PREDIS_INSECURE": text}).insecure is False

    def test_numbers(self, folder: Path) -> None:
        write(folder, "drain_s = 2\nworkers = 3.0\ninsecure = true\n")
        found = load(environ={"PREDIS_DECAY_MARGIN": "1e-2"})
        assert (found.drain_s, found.workers, found.decay_margin) == (2.0, 3, 0.01)
        assert type(found.drain_s) is float
        assert type(found.workers) is int

    def test_choices_may_be_in_capitals(self) -> None:
        assert load(environ={"PREDIS_LOG_LEVEL": "WARNING"}).log_level == "warning"

    def test_several_of_a_kind(self) -> None:
        assert load(environ={}).predictor_models == ()
        assert load({"cache_predictor_models": "LSTM, boosting,lstm,"}, environ={}).predictor_models == (
            "lstm",
            "boosting",
        )

    @pytest.mark.parametrize("home", ["here", Path("here")])
    def test_the_home_folder_is_absolute(self, folder: Path, home: str | Path) -> None:
        assert load({"home": home}, environ={}).home == folder / "here"

    def test_the_home_folder_may_be_a_user_s(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert load({"home": "~/predis"}, environ={}).home == tmp_path / "predis"

    def test_what_follows_from_the_home_folder(self, tmp_path: Path) -> None:
        found = load({"home": tmp_path}, environ={})
        assert found.database_url == f"sqlite:///{tmp_path}/state.sqlite"
        assert found.store_url == f"{tmp_path}/artifacts"
        assert found.journal_folder == tmp_path / "journal"
        elsewhere = load({"state_url": "postgresql://db/x", "artifacts_url": "s3://bucket"}, environ={})
        assert (elsewhere.database_url, elsewhere.store_url) == ("postgresql://db/x", "s3://bucket")


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"workers": "two"}, "flag --workers: workers must be of type int, got 'two'"),
            ({"workers": 2.5}, "of type int"),
            ({"workers": True}, "of type int"),
            ({"workers": "9" * 5000}, "of type int"),
            ({"drain_s": False}, "of type float"),
            ({"drain_s": 10**400}, "of type float"),
            ({"insecure": "perhaps"}, "of type bool"),
            ({"host": 5}, "of type str"),
            ({"state_url": ["a"]}, "of type str"),
            ({"home": 5}, "of type Path"),
            ({"http_port": 0}, "flag --http-port: http_port must be between 1 and 65535, got 0"),
            ({"http_port": 65536}, "between 1 and 65535"),
            ({"workers": 0}, "between 1 and 256"),
            ({"drain_s": -0.1}, "at least 0"),
            ({"drain_s": "nan"}, "at least 0"),
            ({"error_rate_limit": "nan"}, "between 0 and 1"),
            ({"log_level": "loud"}, "log_level must be one of debug, info, warning, error, got 'loud'"),
            ({"log_format": "xml"}, "one of text, json"),
            (
                {"cache_predictor_models": "boosting, gru"},
                "must be some of boosting, lstm, separated by commas, or empty; got 'boosting, gru'",
            ),
            ({"colour": "red"}, "there is no setting 'colour'"),
        ],
    )
    def test_a_value_that_cannot_be(self, flags: Mapping[str, Any], message: str) -> None:
        with pytest.raises(InvalidSetting) as caught:
            load(flags, environ={})
        assert message in caught.value.message

    def test_the_source_is_named(self, folder: Path) -> None:
        with pytest.raises(InvalidSetting, match="environment variable PREDIS_WORKERS: workers must be"):
            load(environ={"PREDIS_WORKERS": ""})
        file = write(folder, "[serving]\nworkers = 2\n", "other.toml")
        with pytest.raises(InvalidSetting, match=r"other\.toml: there is no setting 'serving'"):
            load(environ={}, config=file)

    def test_a_wrong_file_is_refused_even_where_the_environment_says_otherwise(self, folder: Path) -> None:
        write(folder, 'workers = "two"\n')
        with pytest.raises(InvalidSetting, match=r"predis\.toml: workers must be of type int"):
            load(environ={"PREDIS_WORKERS": "2"})

    def test_a_file_that_is_not_toml(self, folder: Path) -> None:
        write(folder, "workers: 2\n")
        with pytest.raises(InvalidSetting, match=r"predis\.toml cannot be read as TOML"):
            load(environ={})
        (folder / "predis.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(InvalidSetting, match="cannot be read as TOML"):
            load(environ={})

    def test_a_file_that_is_not_there(self, folder: Path) -> None:
        with pytest.raises(InvalidSetting, match=r"PREDIS_CONFIG names gone\.toml, which is not a file"):
            load(environ={"PREDIS_CONFIG": "gone.toml"})
        with pytest.raises(InvalidSetting, match=r"gone\.toml cannot be read"):
            load(environ={}, config=folder / "gone.toml")


class TestTable:
    def test_every_field_is_in_it_in_order(self) -> None:
        assert [row.name for row in describe()] == [field.name for field in dataclasses.fields(Settings)]

    @pytest.mark.parametrize("row", describe(), ids=lambda row: row.name)
    def test_a_row_says_what_it_is_and_how_to_give_it(self, row: Any) -> None:
        assert row.help.endswith(".")
        assert row.help[0].isalpha()
        assert row.type in ("Path", "bool", "float", "int", "str")
        assert row.environment == f"PREDIS_{row.name.upper()}"
        assert row.flag == f"--{row.name.replace('_', '-')}"

    @pytest.mark.parametrize("row", [r for r in describe() if r.default], ids=lambda row: row.name)
    def test_a_default_is_a_legal_value(self, row: Any) -> None:
        assert load({row.name: row.default}, environ={}) == load(environ={})

    @pytest.mark.parametrize("suffix", ["_ms", "_s", "_bytes", "_rows", "_days"])
    def test_a_unit_in_a_name_is_the_unit(self, suffix: str) -> None:
        assert {row.unit for row in describe() if row.name.endswith(suffix)} == {suffix.removeprefix("_")}


class TestEnvironments:
    def test_of_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "predis.toml"
        file.write_text(
            'workers = 3\n[environments.staging]\ncontrol = "https://s:8000"\nkey_env = "KEY"\nrequires = ["verify", "served"]\n'
            '[environments.prod]\ncontrol = "https://p:8000"\n'
        )
        assert settings.load(environ={}, config=file).workers == 3
        staging = Environment(
            name="staging", control="https://s:8000", key_env="KEY", requires=("verify", "served")
        )
        prod = Environment(name="prod", control="https://p:8000")
        assert settings.environments(environ={}, config=file) == {"staging": staging, "prod": prod}
        assert settings.environments(environ={"PREDIS_CONFIG": str(file)}).keys() == {"staging", "prod"}

    def test_where_there_is_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert settings.environments(environ={}) == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("environments = 3", "must be tables"),
            ("environments.staging = 3", "must be a table of control, key_env, requires"),
            ("[environments.staging]", "must be the URL"),
            ('[environments.staging]\ncontrol = "x"\nkey = "pk"', "must be a table of"),
            ('[environments.staging]\ncontrol = "x"\nrequires = "verify"', "a list of texts"),
            ("[environments.staging]\ncontrol = 3", "control must be a text"),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "predis.toml"
        file.write_text(text)
        with pytest.raises(InvalidSetting, match=message):
            settings.environments(environ={}, config=file)
