"""The examples in deploy/: their syntax, and that every command line in them is one that this release takes."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from service.cli import application
from service.config import IngestSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def assert_known(words: list[str]) -> None:
    """The command and its options parse, and their values are within bounds."""
    command: Any = typer.main.get_command(application())
    context = command.make_context("clipkeep", list(words), resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context, resilient_parsing=True)
    command.make_context(name, list(words))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_units(path: Path) -> None:
    parsed = unit(path)
    assert parsed["Unit"]["Description"]
    if path.suffix == ".timer":
        assert parsed["Timer"]["OnCalendar"]
        assert parsed["Timer"]["Persistent"] == "true"
        assert parsed["Install"]["WantedBy"] == "timers.target"
        assert path.with_suffix(".service") in UNITS
        return
    program, *words = shlex.split(parsed["Service"]["ExecStart"])
    assert program.endswith("/clipkeep")
    assert_known(words)
    assert parsed["Service"]["Environment"].startswith("CLIPKEEP_DATA=")
    assert parsed["Service"]["Type"] == ("exec" if "serve" in words else "oneshot")


def serving() -> list[list[str]]:
    """The words of every `clipkeep serve` in the examples."""
    lines = [
        shlex.split(unit(path)["Service"]["ExecStart"])[1:] for path in UNITS if path.suffix == ".service"
    ]
    for path in MANIFESTS:
        for pod in [pod for manifest in documents(path) for pod in pods(manifest)]:
            lines += [container["args"] for container in pod["containers"] if "args" in container]
    return [words for words in lines if words[0] == "serve"]


def test_plain_http_is_not_offered_to_every_address() -> None:
    addresses = [words[words.index(option) + 1] for words in serving() for option in ("--ingest", "--api")]
    assert len(addresses) == 6
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1", "$(POD_IP)"}
    for name in ("clipkeep", "hosts"):
        found = documents(DEPLOY / f"kubernetes/{name}.yaml")
        [policy] = [m for m in found if m["kind"] == "NetworkPolicy"]
        [rule] = policy["spec"]["ingress"]
        assert rule["from"][0]["podSelector"]["matchLabels"]
        assert {port["port"] for port in rule["ports"]} == {"ingest", "api"}
        [deployment] = [m for m in found if m["kind"] == "Deployment"]
        assert policy["spec"]["podSelector"] == deployment["spec"]["selector"]
        [service] = [m for m in found if m["kind"] == "Service"]
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    lines = (DEPLOY / "haproxy/haproxy.cfg").read_text().splitlines()
    assert all(" ssl " in line for line in lines if line.strip().startswith("bind "))
    assert all(" 127.0.0.1:" in line for line in lines if line.strip().startswith("server "))
    lines = [line.strip() for line in (DEPLOY / "haproxy/balancer.cfg").read_text().splitlines()]
    assert "mode tcp" in lines, "what comes encrypted is passed on encrypted"
    ports = [line.rpartition(":")[2] for line in lines if line.startswith(("bind ", "server "))]
    assert set(ports) == {"443", "8443"}, "where machines terminate TLS"


def test_who_asks_is_told_by_the_proxy_and_not_by_the_client() -> None:
    lines = [line.strip() for line in (DEPLOY / "haproxy/haproxy.cfg").read_text().splitlines()]
    people = lines[lines.index("frontend people") : lines.index("backend ingest")]
    assert people.index("http-request del-header X-Forwarded-For") < people.index("option forwardfor")
    assert any("/metrics" in line and line.startswith("http-request deny") for line in people)
    balancer = (DEPLOY / "haproxy/balancer.cfg").read_text()
    assert "send-proxy-v2" in balancer
    assert "on-marked-down shutdown-sessions" in balancer, "a camera keeps its connection for days"
    assert "httpchk GET /readyz" in balancer


def test_a_host_joins_as_what_it_serves_as() -> None:
    """It is listed from then on: a pod's name, and that its keys go with it."""
    [deployment] = [m for m in documents(DEPLOY / "kubernetes/hosts.yaml") if m["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    [join], [serve] = pod["initContainers"], pod["containers"]
    assert join["env"] == [env for env in serve["env"] if env["name"].startswith("CLIPKEEP_HOSTS_")]
    assert len(join["env"]) == 2
    assert "rm /data/invite.json" in " ".join(join["command"])


def test_a_service_whose_home_is_away_is_started_until_it_is_back() -> None:
    assert unit(DEPLOY / "systemd/clipkeep.service")["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_commands_of_the_readme_are_those_of_this_release() -> None:
    """In its code blocks, and with values that are taken."""
    text = (DEPLOY / "README.md").read_text()
    blocks = "\n".join(text.split("```")[1::2]).replace("\\\n", " ")
    lines = re.findall(r"(?:^|/bin/)clipkeep (\S.*)", blocks, re.M)
    assert len(lines) >= 6
    for line in lines:
        assert_known(shlex.split(line))


def test_a_disruption_takes_one_host_at_a_time() -> None:
    found = {m["kind"]: m["spec"] for m in documents(DEPLOY / "kubernetes/hosts.yaml")}
    assert found["PodDisruptionBudget"]["maxUnavailable"] == 1
    assert found["PodDisruptionBudget"]["selector"] == found["Deployment"]["selector"]
    assert found["Deployment"]["replicas"] > 2
    [data] = [v for v in found["Deployment"]["template"]["spec"]["volumes"] if v["name"] == "data"]
    assert "emptyDir" in data, "what a host has for itself goes with it"
    [container] = found["Deployment"]["template"]["spec"]["containers"]
    assert {"name": "CLIPKEEP_HOSTS_LASTING", "value": "false"} in container["env"]


@pytest.mark.parametrize("name", ["haproxy", "balancer", "passing"])
def test_haproxy_takes_its_file(tmp_path: Path, name: str) -> None:
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    key = tmp_path / "clipkeep.pem"
    subject = ("-subj", "/CN=clipkeep", "-days", "1")
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/stdout", *subject)
    key.write_bytes(subprocess.run(made, capture_output=True, check=True).stdout)
    text = (DEPLOY / f"haproxy/{name}.cfg").read_text().replace("/etc/haproxy/clipkeep.pem", str(key))
    (tmp_path / "haproxy.cfg").write_text(text)
    said = subprocess.run([program, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "[WARNING]" not in said.stderr


def test_a_stop_has_the_time_it_needs() -> None:
    deadline_s = IngestSettings().stop_deadline_s
    assert float(unit(DEPLOY / "systemd/clipkeep.service")["Service"]["TimeoutStopSec"]) > deadline_s
    for name in ("clipkeep", "hosts"):
        [deployment] = [m for m in documents(DEPLOY / f"kubernetes/{name}.yaml") if m["kind"] == "Deployment"]
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > deadline_s


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def pods(manifest: Any) -> Iterator[Any]:
    spec = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if "template" in spec:
        yield spec["template"]["spec"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_manifests(path: Path) -> None:
    found = documents(path)
    assert all({"apiVersion", "kind", "metadata", "spec"} <= manifest.keys() for manifest in found)
    for pod in [pod for manifest in found for pod in pods(manifest)]:
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            if "args" in container:
                assert_known(container["args"])
            for line in re.findall(
                r"clipkeep ((?:init|host) [^;&|]*)", " ".join(container.get("command", ()))
            ):
                assert_known(shlex.split(line))
        assert pod["securityContext"]["runAsNonRoot"]


def test_the_sweep_runs_when_a_day_is_over() -> None:
    [job] = documents(DEPLOY / "kubernetes/sweep.yaml")
    assert job["spec"]["schedule"].split()[0] == "20"
    assert job["spec"]["timeZone"] == "Etc/UTC"
    assert unit(DEPLOY / "systemd/clipkeep-sweep.timer")["Timer"]["OnCalendar"].endswith(":20:00 UTC")


def test_renewals_run_every_hour_and_not_with_the_sweep() -> None:
    [job] = documents(DEPLOY / "kubernetes/renew.yaml")
    assert job["spec"]["schedule"] == "40 * * * *"
    timer = unit(DEPLOY / "systemd/clipkeep-renew.timer")["Timer"]
    assert timer["OnCalendar"] == "*-*-* *:40:00 UTC"


def test_backups_run_daily_onto_two_volumes_of_their_own() -> None:
    found = documents(DEPLOY / "kubernetes/backup.yaml")
    [job] = [m for m in found if m["kind"] == "CronJob"]
    assert (job["spec"]["schedule"], job["spec"]["timeZone"]) == ("10 2 * * *", "Etc/UTC")
    timer = unit(DEPLOY / "systemd/clipkeep-backup.timer")["Timer"]
    assert timer["OnCalendar"] == "*-*-* 02:10:00 UTC"
    [pod] = pods(job)
    [backup] = pod["containers"]
    service = unit(DEPLOY / "systemd/clipkeep-backup.service")["Service"]["ExecStart"]
    kinds = {word.partition("=")[0] for word in backup["args"] if word != "--data=/data/home"}
    assert kinds == {word for word in shlex.split(service)[1:] if not word.startswith("/")}
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
    assert len(set(claims.values())) == 3
    made = {m["metadata"]["name"] for m in found if m["kind"] == "PersistentVolumeClaim"}
    assert made == {claims["backup"], claims["backup-keys"]}, "the service's own is in clipkeep.yaml"
    mounts = {mount["mountPath"] for mount in backup["volumeMounts"]}
    [folders] = pod["initContainers"]
    made_folders = shlex.split(folders["command"][-1])
    assert made_folders[:4] == ["install", "-d", "-m", "0700"]
    for option, folder in zip(("--to", "--keys-to"), made_folders[4:], strict=True):
        assert f"{option}={folder}" in backup["args"]
        assert folder.rpartition("/")[0] in mounts - {"/data"}


def test_the_image_has_every_room() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY") and len(line.split()) == 3}
    assert copied == {"ingest", "retention", "storage", "service", "bench"}
    assert any(line.startswith("USER 10001") for line in lines)


def test_every_example_is_listed() -> None:
    readme = (DEPLOY / "README.md").read_text()
    for path in (*UNITS, *MANIFESTS):
        assert path.stem in readme
