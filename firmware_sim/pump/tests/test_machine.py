"""The pump's physics: published defect frequencies, waves that agree with the figures, wear that grows, dirt."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from firmware_sim.errors import ConfigError
from firmware_sim.pump import bearing, config, dirt, generate, life
from firmware_sim.pump.bearing import Geometry, Sizes
from firmware_sim.pump.tags import BY_NAME, TAGS, PumpTag, from_raw, registers, to_raw


def test_defect_frequencies_of_a_6205() -> None:
    """The orders that its makers and the CWRU bearing data centre publish for a 6205-2RS."""
    found = bearing.rates(Geometry(), 1.0)
    assert found == pytest.approx((0.3983, 3.5848, 5.4152, 2.3567), abs=5e-4)


@pytest.mark.parametrize("mode", bearing.BEARING_MODES)
def test_the_envelope_of_a_wave_has_a_line_at_the_defect_frequency(mode: str) -> None:
    shaft_hz, rate_hz, count = 24.0, 12_800.0, 16_384
    rng = np.random.default_rng(7)
    wave = bearing.wave(Sizes(0.05, 0.01, 3.0, 0.05, mode), Geometry(), shaft_hz, count, rate_hz, rng)
    spectrum = np.fft.fft(wave)
    hz = np.fft.fftfreq(count, 1 / rate_hz)
    band = (hz > 2000) & (hz < 4000)
    envelope = np.abs(np.fft.ifft(np.where(band, 2 * spectrum, 0)))
    lines = np.abs(np.fft.rfft(envelope - envelope.mean()))
    at = np.fft.rfftfreq(count, 1 / rate_hz)
    wanted = bearing.impact_hz(Geometry(), mode, shaft_hz)
    near = np.abs(at - wanted) < 0.03 * wanted
    beside = (at > 1.2 * wanted) & (at < 1.6 * wanted) & (np.abs(at % shaft_hz) > 2)
    assert lines[near].max() > 4 * np.median(lines[beside])


@pytest.mark.parametrize("mode", ["outer", "inner", "ball", "unbalance", "looseness"])
@pytest.mark.parametrize("severity", [0.0, 0.4, 1.0])
def test_the_figures_are_those_of_the_waves(mode: str, severity: float) -> None:
    impact = 6 * severity if mode in bearing.BEARING_MODES else 0.0
    sizes = Sizes(
        0.05 + 0.3 * severity * (mode == "unbalance"), 0.01 + 0.5 * severity * (mode == "looseness"), impact, 0.07, mode
    )
    rng = np.random.default_rng(7)
    waves = np.concatenate([bearing.wave(sizes, Geometry(), 24.5, 2048, 12_800.0, rng) for _ in range(50)])
    a, b, c, d = (np.array([v]) for v in sizes[:4])
    found = bearing.figures(a, b, c, d, mode, Geometry(), np.array([24.5]))
    assert float(found.rms_g[0]) == pytest.approx(waves.std(), rel=0.08)
    kurtosis = float(np.mean((waves - waves.mean()) ** 4) / waves.var() ** 2)
    assert float(found.kurtosis[0]) == pytest.approx(kurtosis, rel=0.2)


@pytest.mark.parametrize("mode", life.MODES)
def test_wear_begins_grows_and_ends_in_failure(mode: str) -> None:
    run = generate.run(3, step_s=600, mode=mode, days=40)
    assert run.begin_s < run.failure_s < 40 * life.DAY_S
    assert (np.diff(run.health) <= 1e-12).all()
    assert (run.health[run.t_s < run.begin_s] == 1).all()
    assert (run.health[run.t_s >= run.failure_s] == 0).all()
    stands = run.t_s > run.failure_s + 4 * 3600
    assert run.values["flow"][stands].max() < 2
    assert run.values["vib_rms"][stands].max() < 0.01


SHOWS = {
    "outer": "vib_kurtosis", "inner": "vib_kurtosis", "ball": "vib_kurtosis", "unbalance": "vib_velocity",
    "looseness": "vib_velocity", "valve": "flow", "impeller": "discharge",
}  # fmt: skip


@pytest.mark.parametrize("mode", life.MODES)
def test_each_fault_shows_where_it_should(mode: str) -> None:
    run = generate.run(5, step_s=300, mode=mode)
    series = run.values[SHOWS[mode]]
    before, late = series[run.t_s < run.begin_s], series[run.rul_s < 0.03 * run.failure_s]
    assert abs(late.mean() - before.mean()) > 2 * before.std()


def test_equal_seeds_are_equal_runs_and_others_differ() -> None:
    one, same, other = (generate.run(seed, step_s=600, dirt_per_week=5) for seed in (1, 1, 2))
    assert all(np.array_equal(one.values[n], same.values[n], equal_nan=True) for n in one.values)
    assert np.array_equal(one.wave(100), same.wave(100))
    assert one.failure_s != other.failure_s


def test_blocks_join_without_a_seam() -> None:
    from firmware_sim.pump.machine import Machine

    drawn = life.draw(1, 1.0, "outer")
    machine = Machine(drawn, Geometry(), 1, 60.0)
    parts = [machine.block(50) for _ in range(20)]
    t = np.concatenate([b.t_s for b in parts])
    assert np.array_equal(t, 60.0 * np.arange(1000))
    warm = np.concatenate([b.values["bearing_temp"] for b in parts])[t < drawn.begin_s]
    assert np.abs(np.diff(warm)).max() < 2.0


def test_a_machine_without_a_fault_never_fails() -> None:
    run = generate.run(1, mode="none", days=30, step_s=600)
    assert run.health.min() == 1
    assert math.isinf(run.failure_s)


def test_lives_have_the_mean_that_was_asked_for() -> None:
    days = np.array([life.draw(seed, 21.0).failure_s for seed in range(400)]) / life.DAY_S
    assert days.mean() == pytest.approx(21.0, rel=0.08)


@pytest.mark.parametrize("tag", TAGS)
def test_values_survive_the_wire(tag: PumpTag) -> None:
    one = tag
    values = np.array([one.low, one.high, (one.low + one.high) / 3])
    assert from_raw(one, to_raw(one, values)) == pytest.approx(
        values, rel=1e-6, abs=0.5 if one.kind == "uint32" else 0.06
    )


def test_word_orders() -> None:
    flow = BY_NAME["flow"]
    found = {o: registers(flow, 0x0A0B0C0D, o) for o in ("ABCD", "DCBA", "BADC", "CDAB")}
    assert found == {
        "ABCD": [0x0A0B, 0x0C0D], "DCBA": [0x0D0C, 0x0B0A], "BADC": [0x0B0A, 0x0D0C], "CDAB": [0x0C0D, 0x0A0B],
    }  # fmt: skip


T = np.arange(0.0, 600.0, 10.0)
CLEAN = {t.name: np.full(60, 0.4 * t.high) + np.arange(60) * 0.001 * t.high for t in TAGS}


def spoilt(kind: str, tag: str = "flow", wire: bool = True, **more: float) -> tuple[np.ndarray, np.ndarray]:
    """The series inside and outside the dirt from 100 s to 300 s."""
    found = dirt.apply([dirt.Dirt(kind, tag, 100, 200, **more)], T, CLEAN, wire)[tag or "flow"]
    inside = (T >= 100) & (T < 300)
    assert np.array_equal(found[~inside], CLEAN[tag or "flow"][~inside])
    return found[inside], CLEAN[tag or "flow"][inside]


def test_dirt_does_what_it_says_and_no_more() -> None:
    stuck, clean = spoilt("stuck")
    assert (stuck == clean[0]).all()
    spike, clean = spoilt("spike")
    assert (spike - clean) == pytest.approx(np.where(np.arange(20) % 4 == 0, 240, 0))
    drift, clean = spoilt("drift", size=1.0)
    assert (drift - clean)[-1] == pytest.approx(80 * 190 / 3600)
    assert np.isnan(spoilt("drop_out")[0]).all()
    assert np.isnan(spoilt("time_out", "")[0]).all()
    swapped, clean = spoilt("wrong_order")
    assert [registers(BY_NAME["flow"], int(r), "CDAB") for r in to_raw(BY_NAME["flow"], clean)] == [
        registers(BY_NAME["flow"], int(r), "ABCD") for r in to_raw(BY_NAME["flow"], swapped)
    ]


def test_a_half_written_counter_jumps_by_a_whole_word() -> None:
    t, clean = np.arange(10.0), {**{n: np.ones(10) for n in BY_NAME}, "operating_s": np.linspace(65_531, 65_540, 10)}
    torn = dirt.apply([dirt.Dirt("half_written", "operating_s", 4, 3)], t, clean, wire=True)["operating_s"]
    assert [int(v) for v in torn - clean["operating_s"]] == [0, 0, 0, 0, -1, 0, -1, 0, 0, 0]
    t5 = dirt.apply([dirt.Dirt("half_written", "operating_s", 5, 1)], t, clean, wire=True)["operating_s"]
    assert t5[5] == 65_536 + 65_535


def test_what_is_on_the_wire_alone_is_not_in_opc_ua() -> None:
    assert (spoilt("wrong_order", wire=False)[0] == spoilt("wrong_order", wire=False)[1]).all()


def test_dirt_may_come_again() -> None:
    again = dirt.Dirt("drop_out", "flow", 100, 20, every_s=100).since(T) >= 0
    assert set(T[again]) == {t for t in T if t >= 100 and t % 100 < 20}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[dirt]]\nkind = "stuk"\n', "did you mean 'stuck'"),
        ('[[dirt]]\nkind = "stuck"\nat_s = 1\n', "tag is ''"),
        ('[[dirt]]\nkind = "time_out"\ntag = "flow"\nat_s = 1\n', "expected none"),
        ('[[dirt]]\nkind = "stuck"\ntag = "flow"\n', "at_s is missing"),
        ('[[dirt]]\nkind = "stuck"\ntag = "flow"\nat_s = -1\n', "expected a number of at least 0"),
        ('[[dirt]]\nkind = "stuck"\ntag = "flow"\nat_s = 1\nfor_s = 9\nevery_s = 5\n', "every_s"),
        ("fault = 3\n", "expected a list of"),
    ],
)
def test_a_wrong_scenario_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        dirt.load(tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pump]\nspeed = 0\n", "pump.speed is 0.0"),
        ("[pump]\nsped = 1\n", "did you mean 'speed'"),
        ('[pump]\nmode = "rust"\n', "expected one of"),
        ("[bearing]\nballs = 1\n", "expected at least 3 balls"),
    ],
)
def test_a_wrong_pump_toml_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        config.load(tmp_path / "p.toml")
