"""`gudgeon probe modbus HOST[:PORT] | --serial DEVICE`: only reads, one request at a time, with a pause after each."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from edge_runtime.errors import EndpointError, UsageError
from edge_runtime.field import probe
from edge_runtime.field.modbus_line import GATEWAY_CODES, ModbusLine, Refusal, Serial, serial_line, tcp_line
from edge_runtime.field.tag import Space

READ_LIMIT = 120


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(argv: list[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    line = _line(args)
    if not 0 <= args.first <= args.last <= 65535:
        raise UsageError(f"--from {args.first} --to {args.last}: expected 0 <= from <= to <= 65535")
    if not (1 <= args.readings <= 20 and args.pause_ms >= 0 and 0 <= args.unit <= 247):
        raise UsageError("expected --readings 1 to 20, --pause-ms of 0 or more, --unit 0 to 247")
    try:
        line.open()
        report = look(PoliteReader(line, args.unit, args.pause_ms / 1000, time.sleep), args)
    finally:
        line.close()
    print(json.dumps(report, indent=2) if args.json else "\n".join(text(report)))
    return 0


class PoliteReader:
    """Reads of one unit, with a pause after each; `requests` counts them. A unit that never answered is an EndpointError;
    one that falls silent at a block is taken to refuse it, as some devices do, five times in a row at most."""

    def __init__(self, line: ModbusLine, unit: int, pause_s: float, sleep: Callable[[float], None]) -> None:
        self._line, self._unit, self._pause_s, self._sleep = line, unit, pause_s, sleep
        self.requests = 0
        self._silent, self._answered = 0, False

    def __call__(self, space: Space, address: int, count: int) -> list[int] | None:
        self.requests += 1
        try:
            block = self._line.read(self._unit, space, address, count)
            self._silent, self._answered = 0, True
            return [int(v) for v in block[:count]]
        except Refusal as refusal:
            if refusal.code in GATEWAY_CODES:
                raise EndpointError(
                    f"{self._line.name}: the gateway says that unit {self._unit} is silent"
                ) from refusal
            self._silent, self._answered = 0, True
            return None
        except EndpointError:
            self._silent += 1
            if not self._answered or self._silent >= 5:
                raise
            return None
        finally:
            self._sleep(self._pause_s)


def look(read: PoliteReader, args: argparse.Namespace) -> dict[str, Any]:
    found = {space: probe.ranges(read, space, args.first, args.last) for space in args.space or probe.SPACES}
    guesses = {
        space: [g for begin, end in found[space] for g in probe.pairs(_readings(read, space, begin, end, args), begin)]
        for space in probe.REGISTERS
        if space in found
    }
    return {
        "unit": args.unit,
        "requests": read.requests,
        "ranges": {space: [list(r) for r in rows] for space, rows in found.items()},
        "pairs": {
            space: [
                {
                    "address": g.address, "type": g.type, "word_order": g.word_order,
                    "score": round(g.score, 2), "values": list(g.values),
                }
                for g in rows
            ]
            for space, rows in guesses.items()
        },
        "word_orders": [
            {"word_order": order, "score": round(score, 2)}
            for order, score in probe.totals(g for rows in guesses.values() for g in rows)
        ],
    }  # fmt: skip


def text(report: dict[str, Any]) -> list[str]:
    out = [f"unit {report['unit']}, {report['requests']} requests"]
    for space, rows in report["ranges"].items():
        out.append(f"{space:<9}" + (", ".join(f"{a}–{b}" if b > a else str(a) for a, b in rows) or "nothing readable"))
    for space, rows in report["pairs"].items():
        if rows:
            out.append(f"\n{space} pairs, as they look most plausible (a guess: compare with the data sheet)")
            out.append("  address  type     order  score  values")
        for g in rows:
            values = " ".join(f"{v:.6g}" for v in g["values"])
            out.append(f"  {g['address']:<7}  {g['type']:<7}  {g['word_order']:<5}  {g['score']:>5}  {values}")
    if any(o["score"] for o in report["word_orders"]):
        out.append("\norders   " + ", ".join(f"{o['word_order']} {o['score']}" for o in report["word_orders"]))
    return out


def _readings(
    read: PoliteReader, space: Space, begin: int, end: int, args: argparse.Namespace
) -> Sequence[Sequence[int]]:
    """The whole range, some times; what is refused now and was not before counts as zero."""
    out = []
    for _ in range(args.readings):
        row: list[int] = []
        for at in range(begin, end + 1, READ_LIMIT):
            count = min(READ_LIMIT, end + 1 - at)
            row += read(space, at, count) or [0] * count
        out.append(row)
    return out


def _line(args: argparse.Namespace) -> ModbusLine:
    if (args.host is None) == (args.serial is None):
        raise UsageError("expected HOST[:PORT] or --serial DEVICE; see gudgeon probe modbus --help")
    timeout_s = args.timeout_ms / 1000
    if args.serial:
        return serial_line(Serial(args.serial, args.baudrate, args.parity, args.stopbits), timeout_s)
    host, _, port = args.host.partition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"port {port!r}: expected a number from 1 to 65535")
    return tcp_line(host, int(port or 502), timeout_s)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gudgeon probe", description="What an unknown field device has. Only reads.")
    kinds = parser.add_subparsers(dest="protocol", required=True, metavar="modbus")
    modbus = kinds.add_parser("modbus", help="readable ranges, and register pairs with their most plausible byte order")
    modbus.add_argument("host", nargs="?", metavar="HOST[:PORT]", help="Modbus TCP; port 502 where none is given")
    modbus.add_argument("--serial", metavar="DEVICE", help="Modbus RTU on this serial device")
    modbus.add_argument("--baudrate", type=int, default=19200)
    modbus.add_argument("--parity", choices=("N", "E", "O"), default="E")
    modbus.add_argument("--stopbits", type=int, choices=(1, 2), default=1)
    modbus.add_argument("--unit", type=int, default=1, metavar="N")
    modbus.add_argument("--from", dest="first", type=int, default=0, metavar="A", help="zero-based, default 0")
    modbus.add_argument("--to", dest="last", type=int, default=255, metavar="B", help="included, default 255")
    modbus.add_argument("--space", action="append", choices=probe.SPACES, help="only this one; may be given again")
    modbus.add_argument("--readings", type=int, default=4, metavar="N", help="of each range, for the byte orders")
    modbus.add_argument("--pause-ms", type=float, default=20.0, metavar="MS", help="after each request, default 20")
    modbus.add_argument("--timeout-ms", type=float, default=1000.0, metavar="MS")
    modbus.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
