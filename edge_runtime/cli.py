"""The command `gudgeon`: one table of commands, each loaded on demand.

A command function takes the arguments after its name and returns an exit code. What it needs beyond the standard
library is named by its extra, so that a missing dependency is told with the line that installs it.
"""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

from edge_runtime import __version__
from edge_runtime.errors import exit_code


class Command(NamedTuple):
    target: str
    extra: str
    help: str


COMMANDS: dict[str, Command] = {
    "demo": Command("tools.demo.main:main", "edge,cloud,sim,tools", "the whole line on this machine, with a live page"),
    "run": Command(
        "edge_runtime.supervisor:main", "edge", "the device: control, monitor, update, link under the supervisor"
    ),
    "update": Command(
        "edge_runtime.update.cli:main", "edge", "what this device runs and is asked to run; from a medium"
    ),
    "install": Command("edge_runtime.update.install:main", "edge", "stage, try and activate a signed bundle"),
    "enroll": Command(
        "edge_runtime.identity.enroll_cli:main", "edge", "get this device its certificate from the cloud"
    ),
    "alarms": Command("edge_runtime.alarms_cli:main", "edge", "alarms of this device: list, acknowledge, shelve"),
    "probe": Command(
        "edge_runtime.field.probe_cli:main", "edge", "what an unknown Modbus device has, and its byte order"
    ),
    "sim": Command("firmware_sim.cli:main", "sim", "the simulated plant: line, images, pump"),
    "cloud": Command("cloud.main:main", "cloud", "the cloud companion: broker, ingest, store, page"),
    "ingest": Command("cloud.worker:main", "cloud", "one ingest worker more, for a cloud with its own broker"),
    "up": Command("tools.up.main:main", "cloud,postgres,tools", "a larger cloud here: Mosquitto, PostgreSQL, workers"),
    "proof": Command("cloud.proof.cli:main", "cloud", "what of a device's records was delivered, signed and checkable"),
    "device": Command(
        "cloud.device_cli:main", "cloud", "ask a device for another state, or command it, over the cloud"
    ),
    "devices": Command(
        "cloud.devices_cli:main", "cloud", "certificates of devices: tokens, revocation, replacement, CA"
    ),
    "operators": Command("cloud.access.cli:main", "cloud", "who may use the cloud: operators, roles, API tokens"),
    "audit": Command(
        "cloud.audit.cli:main", "cloud", "what was done to the fleet, by whom: list, export, archive, verify"
    ),
    "backup": Command("cloud.backup.cli:main", "cloud", "copies of a whole cloud, and any moment of them again"),
    "experiment": Command("cloud.experiments.cli:main", "cloud", "models side by side on cohorts of devices, compared"),
    "rollout": Command("cloud.rollout.cli:main", "cloud", "give an artifact to many devices, group by group; tags"),
    "export": Command("cloud.export.cli:main", "cloud", "Events of a period as a Parquet file"),
    "train": Command("tools.pipeline.launch:train", "tools", "train, quantise, pack and sign a bundle"),
    "evaluate": Command(
        "tools.pipeline.launch:evaluate", "edge,tools", "score a bundle on images, or models on a benchmark"
    ),
    "predict": Command("tools.pipeline.launch:predict", "edge,tools", "run a bundle on a file: remaining life"),
    "pack": Command(
        "tools.release.main:main", "edge,tools", "a runtime release, or a configuration, as one archive to be signed"
    ),
    "sign": Command("edge_runtime.update.sign:main", "edge", "sign a bundle as its developer, or (--key) a release"),
    "keys": Command("cloud.registry.keys_cli:main", "cloud", "keys that sign releases: make, list, public half"),
    "repo": Command(
        "cloud.registry.repo_cli:main", "cloud", "the repository of releases: init, add, publish, rotate, …"
    ),
    "bench": Command("tools.bench.main:main", "edge,tools", "measure against a floor: loop, infer, outbox, uplink, …"),
    "chaos": Command("tools.chaos.main:main", "edge,cloud,tools", "a device and cloud pair through named faults"),
    "fleet": Command("tools.fleet.main:main", "edge,cloud,tools", "many emulated devices through a broker restart"),
    "doctor": Command("edge_runtime.doctor:main", "edge", "what is installed and what this board can do"),
}


def main(argv: list[str] | None = None) -> int:
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if args[0] == "--version":
        print(f"gudgeon {__version__}")
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; see gudgeon --help"
        print(f"gudgeon: unknown command {name!r}{hint}", file=sys.stderr)
        return 2
    return run(name, rest)


def run(name: str, rest: list[str]) -> int:
    command = COMMANDS[name]
    module, function = command.target.split(":")
    try:
        entry = getattr(importlib.import_module(module), function)
        return exit_code(f"gudgeon {name}", lambda: entry(rest))
    except ModuleNotFoundError as error:
        print(
            f"gudgeon {name}: needs the Python package {error.name!r}, which is not installed; "
            f"install it with: pip install 'gudgeon[{command.extra}]'",
            file=sys.stderr,
        )
        return 7


def usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {c.help}" for name, c in COMMANDS.items())
    return f"usage: gudgeon COMMAND [ARGS…]\n\n{rows}\n\ngudgeon COMMAND --help tells more."


if __name__ == "__main__":
    sys.exit(main())
