"""kill -9 of each process of the pair in turn."""

from __future__ import annotations

from tools.chaos.evidence import Evidence
from tools.chaos.pair import Pair

VICTIMS = ("producer", "link", "cloud", "broker")
BETWEEN_S = 0.7


def kill_process(pair: Pair, seconds: float) -> Evidence:
    """Round after round until the time is over, each process at least once; the keeper starts them again."""
    victims = [name for name in VICTIMS if name in pair.keeper]
    kills, turn, left_s = dict.fromkeys(victims, 0), 0, seconds
    while left_s > 0 or turn < len(victims):
        name = victims[turn % len(victims)]
        pair.wait(10.0, lambda name=name: pair.keeper[name].alive)  # type: ignore[misc]
        kills[name] += pair.kill(name)
        pair.wait(BETWEEN_S)
        turn, left_s = turn + 1, left_s - BETWEEN_S
    deaths = {name: pair.keeper[name].ends.count(-9) for name in victims}
    return Evidence(all(deaths.values()), "SIGKILL", {"kills": kills, "died_of_it": deaths})
