"""The image, the compose file and the service: that they parse, and that all they name is there and agrees."""

from __future__ import annotations

import configparser
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml

from puna.cli import cli
from puna.stack.app import make_app
from puna.stack.config import StackConfig, read_config
from puna.stack.operation import server
from puna.stack.testing import live, make_stack

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRET = "0123456789abcdef" * 4
CONFIG = "/etc/puna/stack.toml"


class Service(configparser.RawConfigParser):
    """A unit file, whose names have capitals and may come twice."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, comment_prefixes=("#", ";"), delimiters=("=",))
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read(path, encoding="utf-8")


def stages(path: Path) -> list[list[tuple[str, str]]]:
    """Instructions and their words, by stage."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = []
    for line in filter(str.strip, text.splitlines()):
        name, _, words = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, words.strip()))
    return found


def variables(value: Any, environment: Mapping[str, str]) -> Any:
    """A compose file's value with `${NAME}`, `${NAME:-default}` and `${NAME:?message}` filled in."""

    def filled(match: re.Match[str]) -> str:
        name, kind, rest = match[1], match[2], match[3]
        if environment.get(name):
            return environment[name]
        assert kind == ":-", f"{name} is needed"
        return rest

    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", filled, value)
    if isinstance(value, dict):
        return {key: variables(item, environment) for key, item in value.items()}
    return [variables(item, environment) for item in value] if isinstance(value, list) else value


IMAGE = stages(DEPLOY / "Containerfile")
LAST = dict(IMAGE[-1])
UNIT = Service(DEPLOY / "puna.service")
GIVEN = {"PUNA_RUN": "/runs/a", "PUNA_KEY": f"puna-admin-{SECRET}", "POSTGRES_PASSWORD": "pw"}
COMPOSE = variables(yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8")), GIVEN)["services"]


def options(words: list[str]) -> dict[str, Any]:
    """What the command line understands, by option; it refuses what it does not know."""
    assert words[0] == "serve"
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    return command.make_context("serve", list(words[1:])).params


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


# What all three say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        json.loads(LAST["CMD"]),
        COMPOSE["puna"]["command"],
        shlex.split(UNIT["Service"]["ExecStart"])[1:],
    ],
    ids=["image", "compose", "service"],
)
def test_the_commands_are_this_programs(words: list[str]) -> None:
    given = options(words)
    assert str(given["config_path"]) == CONFIG
    assert str(given["state"]) == "/var/lib/puna/state"  # on the volume, and in the unit's StateDirectory
    assert str(given["path"]) in ("/model", "/srv/puna")


def settings(environment: Mapping[str, str]) -> StackConfig:
    return read_config(DEPLOY / "stack.toml", environment)


def test_the_settings_are_read_and_the_port_is_everywhere_the_same() -> None:
    port = settings({}).server.port
    assert LAST["EXPOSE"] == str(port)
    assert COMPOSE["puna"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    health = (LAST["HEALTHCHECK"], " ".join(COMPOSE["puna"]["healthcheck"]["test"]))
    assert all(f"http://127.0.0.1:{port}/v1/health" in text for text in health)


def test_a_stop_outlasts_the_drain() -> None:
    drain = settings({}).server.drain_seconds
    assert seconds(UNIT["Service"]["TimeoutStopSec"]) > drain
    assert seconds(COMPOSE["puna"]["stop_grace_period"]) > drain


def test_a_service_without_variables_is_this_machines_alone(tmp_path: Path) -> None:
    config = settings({})
    assert config.server.is_loopback
    server.build(config, tmp_path)


# The image ------------------------------------------------------------------------------------------------------------


def test_the_image_has_what_it_copies_and_installs() -> None:
    assert {name for stage in IMAGE for name, _ in stage} <= {
        "FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
        "ENTRYPOINT", "CMD",
    }  # fmt: skip
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    for name, words in (pair for stage in IMAGE for pair in stage):
        if name == "COPY" and not words.startswith("--from="):
            for source in words.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, rule) for rule in allowed), f"{source} is ignored"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = [
        re.findall(r"\[([\w,]+)\]", path.read_text()) for path in (DEPLOY / "Containerfile", DEPLOY / "puna.service")
    ]
    for extras in installed:
        assert extras
        assert set(extras[0].split(",")) <= project["optional-dependencies"].keys()


def test_the_image_runs_as_nobody_special_and_keeps_what_it_writes() -> None:
    assert LAST["USER"] not in ("root", "0", "")
    environment = dict(pair.split("=", 1) for name, words in IMAGE[-1] if name == "ENV" for pair in words.split())
    assert json.loads(LAST["ENTRYPOINT"]) == ["puna"]
    assert environment["PATH"].startswith("/opt/puna/bin:")
    for path in (environment["PUNA_CACHE"], str(options(json.loads(LAST["CMD"]))["state"])):
        assert path.startswith(f"{LAST['VOLUME']}/")
    config = settings(environment | {"PUNA_KEY": GIVEN["PUNA_KEY"]})
    assert not config.server.is_loopback  # or nobody outside the container reached it
    assert f"deploy/stack.toml {CONFIG}" in [words for name, words in IMAGE[-1] if name == "COPY"]


def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(tmp_path: Path) -> None:
    code = json.loads(LAST["HEALTHCHECK"].partition("CMD ")[2])
    assert COMPOSE["puna"]["healthcheck"]["test"] == ["CMD", *code]
    assert code[:2] == ["python", "-c"]
    with live(make_stack(tmp_path)) as url:
        here = code[2].replace("http://127.0.0.1:8321", url)
        assert here != code[2]
        assert httpx.get(f"{url}/v1/health", trust_env=False).status_code == 200
        assert subprocess.run([sys.executable, "-c", here], check=False, env={}).returncode == 0
    gone = subprocess.run([sys.executable, "-c", here], check=False, env={}, capture_output=True)
    assert gone.returncode == 1


# Compose --------------------------------------------------------------------------------------------------------------


def test_compose_starts_the_server_with_a_key_over_its_database() -> None:
    service, database = COMPOSE["puna"], COMPOSE["postgres"]
    environment = {key: value for key, value in service["environment"].items() if key.startswith("PUNA_")}
    image = dict(pair.split("=", 1) for name, words in IMAGE[-1] if name == "ENV" for pair in words.split())
    config = settings(image | environment)
    assert config.server.key == GIVEN["PUNA_KEY"]
    user, password = database["environment"]["POSTGRES_USER"], database["environment"]["POSTGRES_PASSWORD"]
    assert (
        config.storage.database
        == f"postgresql://{user}:{password}@postgres:5432/{database['environment']['POSTGRES_DB']}"
    )
    assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "healthcheck" in database
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["build"]["args"].keys() == {words.split("=")[0] for name, words in IMAGE[0] if name == "ARG"}


def test_compose_mounts_what_the_command_names_and_nothing_else_is_written() -> None:
    service = COMPOSE["puna"]
    mounts = {target: source for source, target, *_ in (volume.split(":") for volume in service["volumes"])}
    assert mounts == {LAST["VOLUME"]: "state", str(options(service["command"])["path"]): GIVEN["PUNA_RUN"]}
    assert service["read_only"]
    assert "/tmp" in service["tmpfs"]  # torch does not start without one


@pytest.mark.parametrize("name", ["PUNA_RUN", "PUNA_KEY", "POSTGRES_PASSWORD"])
def test_compose_says_what_is_missing(name: str) -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    with pytest.raises(AssertionError, match=f"{name} is needed"):
        variables(yaml.safe_load(text), GIVEN | {name: ""})


# The service ----------------------------------------------------------------------------------------------------------


def test_the_service_is_hardened_and_may_write_where_it_does() -> None:
    service = UNIT["Service"]
    for name, value in {"DynamicUser": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "NoNewPrivileges": "yes",
                        "PrivateTmp": "yes", "CapabilityBoundingSet": ""}.items():  # fmt: skip
        assert service[name] == value
    environment = dict(pair.split("=", 1) for pair in service["Environment"].split())
    assert str(options(shlex.split(service["ExecStart"])[1:])["state"]).startswith(
        f"/var/lib/{service['StateDirectory']}/"
    )
    assert environment["PUNA_CACHE"] == f"/var/cache/{service['CacheDirectory']}"
    assert "HUP" in service["ExecReload"]
    assert service["Restart"] == "on-failure"
    assert "MemoryDenyWriteExecute" not in service  # torch's products compile themselves


def test_systemd_understands_the_service(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "puna.service").read_text(encoding="utf-8")
    assert "/opt/puna/bin/puna " in UNIT["Service"]["ExecStart"]
    (tmp_path / "puna.service").write_text(text.replace("ExecStart=/opt/puna/bin/puna", "ExecStart=/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "puna.service"], capture_output=True, text=True, check=False
    )
    assert "puna.service" not in done.stderr, done.stderr
    wrong = text.replace("ExecStart=/opt/puna/bin/puna", "ExecStart=/bin/true").replace("DynamicUser=", "DynamicUsers=")
    (tmp_path / "puna.service").write_text(wrong)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "puna.service"], capture_output=True, text=True, check=False
    )
    assert "DynamicUsers" in done.stderr


def test_the_health_route_is_open_without_a_key(tmp_path: Path) -> None:
    routes = make_app(make_stack(tmp_path)).openapi()["paths"]
    assert "/v1/health" in routes
    from puna.stack.operation.middleware import is_open

    assert is_open("/v1/health")
