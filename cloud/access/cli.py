"""`gudgeon operators`: who may use the cloud. Works on the store itself, also while no cloud runs; all of it is in the audit log.

    gudgeon operators list   --config cloud.toml
    gudgeon operators add NAME --role viewer|operator|releaser|admin --config cloud.toml [--password-stdin | --no-password]
    gudgeon operators change NAME [--role R] [--password | --password-stdin] --config cloud.toml
    gudgeon operators disable|enable NAME --config cloud.toml
    gudgeon operators sessions --config cloud.toml                 who is signed in
    gudgeon operators sign-out NAME --config cloud.toml            also a name of a provider of identities (oidc:…)
    gudgeon operators token create NAME [--role R] [--days N] [--scope devices …] [--label TEXT] --config cloud.toml
    gudgeon operators token list [NAME] --config cloud.toml
    gudgeon operators token revoke ID --config cloud.toml

A token is shown this once. Exit codes: 0 done; 2 wrong use, or refused; 3 the configuration is wrong; 6 the store cannot be
used."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from cloud.access import operators
from cloud.access.roles import Role
from cloud.access.shell import shell_actor
from cloud.settings import load_cloud
from cloud.store.opening import open_store
from edge_runtime.errors import UsageError

ROLES = [role.word for role in Role]


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    engine = open_store(load_cloud(args.config).store.address)
    try:
        found = ACTIONS[args.action](engine, args)
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        engine.dispose()
    if args.json:
        print(json.dumps(found))
    else:
        print(("\n".join(map(_line, found)) or "none") if isinstance(found, list) else _line(found))
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon operators", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _action(actions, "list", "operators")
    added = _action(actions, "add", "a new operator", "name")
    added.add_argument("--role", choices=ROLES, required=True)
    _passwords(added)
    added.add_argument("--no-password", action="store_true", help="tokens only")
    changed = _action(actions, "change", "another role or password; the operator is signed out", "name")
    changed.add_argument("--role", choices=ROLES)
    changed.add_argument("--password", action="store_true", help="ask for a new one")
    _passwords(changed)
    _action(actions, "disable", "no sign-in, no token, no session any more", "name")
    _action(actions, "enable", "undo disable", "name")
    _action(actions, "sessions", "who is signed in")
    _action(actions, "sign-out", "end all sessions of a name", "name")
    tokens = actions.add_parser("token", help="API tokens: create, list, revoke").add_subparsers(
        dest="token_action", required=True, metavar="ACTION"
    )
    made = _action(tokens, "create", "a new token, shown this once", "name")
    made.add_argument("--role", choices=ROLES, help="no more than this (the operator's)")
    made.add_argument("--days", type=float, default=90.0, help="until it expires (90)")
    made.add_argument("--scope", action="append", default=[], metavar="WORD", help="first word of API paths (all)")
    made.add_argument("--label", default="", metavar="TEXT", help="what it is for")
    _action(tokens, "list", "tokens, of one operator or all").add_argument("name", nargs="?", metavar="NAME")
    _action(tokens, "revoke", "never again", "id")
    args = parser.parse_args(argv)
    args.action = f"token {args.token_action}" if args.action == "token" else args.action
    return args


def _action(actions: Any, name: str, text: str, *words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    for word in words:
        parser.add_argument(word, metavar=word.upper())
    parser.add_argument("--config", type=Path, required=True, metavar="cloud.toml")
    parser.add_argument("--json", action="store_true")
    return parser


def _passwords(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--password-stdin", action="store_true", help="read it from standard input, not from a prompt")


def _password(args: argparse.Namespace) -> str:
    if args.password_stdin:
        return sys.stdin.readline(1000).rstrip("\n")
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a password at; say --password-stdin")
    first = getpass.getpass(f"password of {args.name}: ")
    if first != getpass.getpass("again: "):
        raise UsageError("the two do not fit; nothing was changed")
    return first


def _list(engine: Engine, _: argparse.Namespace) -> Any:
    return operators.listed(engine)


def _add(engine: Engine, args: argparse.Namespace) -> Any:
    password = None if args.no_password else _password(args)
    operators.add(engine, shell_actor(), args.name, Role.of(args.role), password, time.time_ns())
    return _one(engine, args.name)


def _change(engine: Engine, args: argparse.Namespace) -> Any:
    password = _password(args) if args.password or args.password_stdin else None
    if password is None and args.role is None:
        raise UsageError("nothing to change: expected --role or --password")
    role = Role.of(args.role) if args.role else None
    operators.change(engine, shell_actor(), args.name, time.time_ns(), role=role, password=password)
    return _one(engine, args.name)


def _disable(engine: Engine, args: argparse.Namespace) -> Any:
    operators.change(engine, shell_actor(), args.name, time.time_ns(), disabled=args.action == "disable")
    return _one(engine, args.name)


def _sessions(engine: Engine, _: argparse.Namespace) -> Any:
    return operators.sessions(engine, time.time_ns())


def _sign_out(engine: Engine, args: argparse.Namespace) -> Any:
    return {"name": args.name, "sessions": operators.sign_out(engine, shell_actor(), args.name, time.time_ns())}


def _create_token(engine: Engine, args: argparse.Namespace) -> Any:
    owner = operators.operator(engine, args.name)
    role = Role.of(args.role or (owner["role"] if owner else "viewer"))
    now_ns = time.time_ns()
    number, text = operators.make_token(
        engine, shell_actor(), args.name, role, args.days, args.scope, args.label, now_ns
    )
    return {"id": number, "token": text}


def _list_tokens(engine: Engine, args: argparse.Namespace) -> Any:
    return operators.tokens(engine, args.name)


def _revoke_token(engine: Engine, args: argparse.Namespace) -> Any:
    operators.revoke_token(engine, shell_actor(), args.id, time.time_ns())
    return {"id": args.id, "revoked": True}


def _one(engine: Engine, name: str) -> Any:
    return next(row for row in operators.listed(engine) if row["name"] == name)


def _line(row: dict[str, Any]) -> str:
    if "token" in row:
        return str(row["token"])
    words = []
    for name, value in row.items():
        if value in (None, "", False) or name == "made_ns":
            continue
        if name.endswith("_ns"):
            name, value = name[:-3], datetime.fromtimestamp(value / 1e9, UTC).strftime("%Y-%m-%dT%H:%MZ")
        words.append(name.replace("_", " ") if value is True else f"{name} {value}")
    return "  ".join(words)


ACTIONS = {
    "list": _list,
    "add": _add,
    "change": _change,
    "disable": _disable,
    "enable": _disable,
    "sessions": _sessions,
    "sign-out": _sign_out,
    "token create": _create_token,
    "token list": _list_tokens,
    "token revoke": _revoke_token,
}
