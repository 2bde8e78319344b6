"""The command line in this process: help, completion, errors, and verbs that need no server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from predis import __version__
from predis.cli import main, output
from predis.settings import describe

runner = CliRunner()


def commands(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_explains_itself_and_its_options(path: tuple[str, ...]) -> None:
    shown = runner.invoke(main, [*path, "--help"])
    assert shown.exit_code == 0
    command = dict(commands())[path]
    assert command.help
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert not undocumented


@pytest.mark.parametrize(
    "path", [path for path, c in commands() if path[-1] == "list" or path == ("alerts",)], ids=" ".join
)
def test_every_listing_has_json(path: tuple[str, ...]) -> None:
    assert any("--json" in p.opts for p in dict(commands())[path].params)


def test_up_has_a_flag_for_every_setting() -> None:
    flags = {option for p in main.commands["up"].params for option in p.opts}
    assert {row.flag for row in describe()} <= flags


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    shown = runner.invoke(main, ["completion", shell])
    assert shown.exit_code == 0
    assert "_PREDIS_COMPLETE" in shown.output


def test_version() -> None:
    assert __version__ in runner.invoke(main, ["--version"]).output


def test_an_error_is_one_line_with_its_code(home: Path) -> None:
    shown = runner.invoke(main, ["up", "--home", str(home), "--workers", "0"])
    assert shown.exit_code == 1
    assert shown.stderr.splitlines() == [
        "predis: flag --workers: workers must be between 1 and 256, got 0 [invalid_setting]"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[alerts.routes.page]\nchannel = "pager"', "a route's channel is"),
        ('[cache.sources.users]\npattern = "user:{id}"', "source 'users': kind is missing"),
    ],
)
def test_what_a_role_would_refuse_of_the_file_is_said_before_any_starts(
    home: Path, tmp_path: Path, *, text: str, fault: str
) -> None:
    (tmp_path / "predis.toml").write_text(text)
    shown = runner.invoke(
        main, ["up", "--home", str(home)], env={"PREDIS_CONFIG": str(tmp_path / "predis.toml")}
    )
    assert shown.exit_code == 1
    (line,) = shown.stderr.splitlines()
    assert fault in line
    assert line.endswith("[invalid_setting]")


@pytest.mark.parametrize("url", ["http://a:1", "redis+sentinel://a", "redis+cluster://", "redis://a:port"])
def test_a_url_of_no_valkey_is_said_before_any_starts(home: Path, url: str) -> None:
    shown = runner.invoke(main, ["up", "--home", str(home), "--valkey-url", url])
    assert shown.exit_code == 1
    (line,) = shown.stderr.splitlines()
    assert "valkey_url" in line
    assert line.endswith("[invalid_setting]")


def test_nobody_there_is_told_plainly() -> None:
    shown = runner.invoke(main, ["endpoint", "list", "--control", "http://127.0.0.1:9"])
    assert shown.exit_code == 1
    assert "[unreachable]" in shown.stderr
    assert "is `predis up` running?" in shown.stderr


def test_get_answers_in_process(home: Path) -> None:
    health = runner.invoke(main, ["get", "/api/v1/health", "--home", str(home)])
    assert (health.exit_code, json.loads(health.stdout)["status"]) == (0, "ok")
    live = runner.invoke(main, ["get", "/v2/health/live", "--home", str(home)])
    assert (live.exit_code, json.loads(live.stdout)) == (0, {"live": True})
    nothing = runner.invoke(main, ["get", "/api/v1/endpoints/none", "--home", str(home)])
    assert (nothing.exit_code, json.loads(nothing.stdout)["code"]) == (1, "endpoint_not_found")
    page = runner.invoke(main, ["get", "/", "--home", str(home)])
    assert page.exit_code == 0
    assert "<!doctype html>" in page.stdout.lower()


def test_doctor_looks_at_home_disk_and_ports(home: Path) -> None:
    from tests.installation import free_ports

    control, http, grpc, cache = free_ports(4)
    ports = ["--control-port", str(control), "--http-port", str(http), "--grpc-port", str(grpc)]
    ports += ["--cache-port", str(cache)]
    shown = runner.invoke(main, ["doctor", "--home", str(home), *ports, "--json"])
    assert shown.exit_code == 0
    found = {row["what"]: row for row in json.loads(shown.stdout)}
    assert {"Python", "home folder", "disk", "state database", f"port {control}", f"port {http}"} <= set(
        found
    )
    assert f"port {cache}" in found


def test_doctor_lists_the_settings() -> None:
    rows = json.loads(runner.invoke(main, ["doctor", "--settings", "--json"]).stdout)
    assert [row["name"] for row in rows] == [row.name for row in describe()]


def test_keys_and_audit_work_on_the_home_alone(home: Path) -> None:
    made = runner.invoke(main, ["key", "create", "alice", "--role", "viewer", "--home", str(home)])
    assert made.stdout.startswith("pk_")
    listed = json.loads(runner.invoke(main, ["key", "list", "--home", str(home), "--json"]).stdout)
    assert [(row["name"], row["role"], row["revoked_at"]) for row in listed] == [("alice", "viewer", None)]
    assert runner.invoke(main, ["key", "revoke", listed[0]["id"], "--home", str(home)]).exit_code == 0
    again = runner.invoke(main, ["key", "revoke", listed[0]["id"], "--home", str(home)])
    assert "[not_found]" in again.stderr
    assert runner.invoke(main, ["audit", "--home", str(home)]).exit_code == 0


def test_a_plan_value_is_json_or_text() -> None:
    bad = runner.invoke(main, ["deploy", "e", "1", "--set", "nonsense"])
    assert "--set takes NAME=VALUE" in bad.stderr
    bad = runner.invoke(main, ["deploy", "e", "1", "--steps", "0.1,half"])
    assert "--steps must be numbers" in bad.stderr


def test_values_read_as_people_do() -> None:
    assert [output.text(v) for v in (None, True, 0.123456, [1, 2], {"a": 1.0}, "x")] == [
        "-",
        "yes",
        "0.1235",
        "1, 2",
        "a=1",
        "x",
    ]


def test_urls_of_an_open_host_are_reachable_from_here(home: Path) -> None:
    from predis.settings import load

    settings = load({"home": home, "host": "0.0.0.0"}, environ={})
    assert output.urls(settings)[0] == "http://127.0.0.1:8000"
