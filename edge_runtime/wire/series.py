"""A bundle of time series: what its `manifest.toml` says. Standard library only; shared by training, device and cloud.

<bundle>/
  manifest.toml       this document, `kind = "anomaly"` or `"rul"`; names every other file with its SHA-256
  manifest.sig        Ed25519 over the bytes of manifest.toml, as for a vision bundle
  model.fp32.onnx     variants; input float32 (1, history, columns), one output (1, values)
  golden.npz          `windows` float64 (n, rows, tags): raw values on the grid; `outputs` float32 (n, values)
  reference.npz       optional: `levels` (q,), `inputs` (q, columns), `scores` (q,): quantiles of the training inputs
                      (scaled) and of the calibration scores (smoothed): the null that drift is measured against
  CARD.md             optional, for people

The road of a value, one definition in training and on the device:

    Samples ──field.window──▶ rows on the grid ──infer.features──▶ columns ──Scaler──▶ engine ──▶ values

`FeatureView` says which tags on which grid become which columns. Its `digest()` is in the manifest; a bundle whose view
and hash do not agree is refused. A column at row t depends on rows up to t only.

What the values mean:

    anomaly   [score, share of tag 1, … share of tag n]: the score is smoothed (`Calibration`), then compared with the
              threshold; the shares (0 to 1, sum 1, in the view's order of tags) say which tags it came from
    rul       [remaining, lower, upper], in `Interval.unit`: the two ends are widened by the interval's offsets, all
              three are limited to 0…cap (`infer.series.remaining`)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import Variant

SCHEMA = 1
KINDS = ("anomaly", "rul")
REFERENCE = "reference.npz"
SMOOTHINGS = ("none", "mean", "median", "ewma")
CONTRIBUTIONS = ("reconstruction_error", "gradient", "none")
TAGS_LIMIT, COLUMNS_LIMIT, ROWS_LIMIT = 256, 1024, 1 << 20
NAME = re.compile(r"[^\x00-\x1f]{1,128}")

# What a Feature may be: how many tags one column is made of, and whether it needs a band. `infer.features` computes them.
#   value last row · diff last − first · slope least squares, per second · log_energy of a band, by Hann-windowed spectrum
#   envelope: log energy of a band of the spectrum of |analytic signal| · corr, ratio: of two tags · spread: std over tags
PER_TAG = (
    "value", "mean", "std", "min", "max", "range", "median", "slope", "diff", "rms", "kurtosis", "skew", "crest",
)  # fmt: skip
BANDED = ("log_energy", "envelope")
PAIRED = ("corr", "ratio")
POOLED = ("spread",)
OPTIONAL = ("min_rows", "settings", "setting_scale", "regimes", "blends")
REGIMES_LIMIT = 64
FEATURE_KINDS = (*PER_TAG, *BANDED, *PAIRED, *POOLED)


@dataclass(frozen=True)
class TagView:
    """One tag of a view. `resample`: ``last`` is the newest sample at or before the row, ``mean`` the mean of those since
    the row before (the newest where there is none). `hold_s`: how long a value stands in for missing ones; beyond it
    the row is NaN and the window's quality uncertain. `stale_s`: a tag whose newest sample is older than this makes
    the window uncertain even while a value is held; 0: as `hold_s`."""

    name: str
    unit: str = ""
    resample: str = "last"
    hold_s: float = 5.0
    stale_s: float = 0.0


@dataclass(frozen=True)
class Feature:
    """One kind of column over the last `rows` rows (0: the whole window). A kind in `PER_TAG` or `BANDED` gives a
    column for each of `tags` (none named: every tag of the view); a kind in `PAIRED` one column of exactly two tags;
    ``spread`` one column of all of its tags. `low_hz`, `high_hz`: the band of a `BANDED` kind."""

    kind: str
    tags: tuple[str, ...] = ()
    rows: int = 0
    low_hz: float = 0.0
    high_hz: float = 0.0


@dataclass(frozen=True)
class Regime:
    """One way of running: `center` is where the view's `settings` stand; there tag t of the view becomes
    (t − mean) / scale before any feature is computed. One mean and scale a tag, in the view's order."""

    center: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass(frozen=True)
class Blend:
    """A fused signal that features may name like a tag: offset + Σ weight × tag (after the regimes), one weight a tag."""

    name: str
    weights: tuple[float, ...]
    offset: float = 0.0


@dataclass(frozen=True)
class FeatureView:
    """Which tags, on which grid, become which columns. `grid_s`: time between rows. `window_rows`: the most rows that
    one feature looks at. `history_rows`: how many rows of columns are one input of the model. `step_rows`: rows between
    two scores on the device. `version` is for people; `digest()` is what is compared.

    `min_rows`: 0 asks for the whole window; else a feature looks at the rows that are there, once there are so many
    (a machine with a short history), and a history of columns that is too short is filled with its oldest row.
    `regimes`: a row is normalised by the one whose center is nearest in the tags `settings`, each divided by its
    `setting_scale`; none: no row is normalised. `blends`: further signals made of the tags, for features to name."""

    name: str
    version: str
    tags: tuple[TagView, ...]
    features: tuple[Feature, ...]
    grid_s: float = 1.0
    window_rows: int = 1
    history_rows: int = 1
    step_rows: int = 1
    min_rows: int = 0
    settings: tuple[str, ...] = ()
    setting_scale: tuple[float, ...] = ()
    regimes: tuple[Regime, ...] = ()
    blends: tuple[Blend, ...] = ()

    @property
    def rows(self) -> int:
        """The most rows on the grid that one input is made of."""
        return self.window_rows + self.history_rows - 1

    @property
    def least_rows(self) -> int:
        """The fewest rows on the grid that one input can be made of."""
        return self.min_rows or self.rows

    @cached_property
    def tag_names(self) -> tuple[str, ...]:
        return tuple(tag.name for tag in self.tags)

    @cached_property
    def signal_names(self) -> tuple[str, ...]:
        """What a feature may name: the tags, then the blends."""
        return (*self.tag_names, *(blend.name for blend in self.blends))

    def columns(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, tags it is made of) of each column, in order."""
        return tuple(column for feature in self.features for column in _columns(feature, self))

    def canonical(self) -> bytes:
        """The view as sorted, compact JSON: equal views give equal bytes. `OPTIONAL` fields are left out where unused."""
        data = {name: value for name, value in asdict(self).items() if value or name not in OPTIONAL}
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def digest(self) -> str:
        return hashlib.sha256(self.canonical()).hexdigest()


@dataclass(frozen=True)
class Scaler:
    """Column c becomes (c − center) / scale, limited to ± clip; one center and scale a column."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float = 20.0


@dataclass(frozen=True)
class Calibration:
    """How a score becomes a verdict. The score is smoothed over the last `smooth_rows` scores (causal), and is anomalous
    where it is above `threshold`. `false_alarm_rate`: the share of normal rows stated to be above it; `measured_rate`
    what held-out rows gave, with its 95 % interval; `rows` of them. `levels`: smoothed scores at smaller rates, by name
    of severity, all at or above the threshold."""

    method: str
    false_alarm_rate: float
    threshold: float
    smoothing: str = "none"
    smooth_rows: int = 1
    rows: int = 0
    measured_rate: float = 0.0
    measured_low: float = 0.0
    measured_high: float = 1.0
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """How a rul model's values become an answer: lower − `lower_offset` … upper + `upper_offset`, limited to 0…`cap`;
    `coverage` is what the interval is calibrated for."""

    unit: str
    cap: float
    coverage: float
    lower_offset: float = 0.0
    upper_offset: float = 0.0


@dataclass(frozen=True)
class SeriesManifest:
    """`calibration` is there exactly where the kind is anomaly, `interval` exactly where it is rul."""

    kind: str
    name: str
    version: str
    created: str
    view: FeatureView
    view_sha256: str
    scaler: Scaler
    variants: tuple[Variant, ...]
    files: Mapping[str, str]
    calibration: Calibration | None = None
    interval: Interval | None = None
    contributions: str = "reconstruction_error"
    members: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def values(self) -> int:
        """How many numbers the engine gives for one input."""
        return 3 if self.kind == "rul" else 1 + len(self.view.tags)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for a TOML writer; `parse` of its TOML gives an equal SeriesManifest."""
        data: dict[str, Any] = wire.plain(self)
        return {name: value for name, value in data.items() if value is not None}


def parse(manifest_bytes: bytes) -> SeriesManifest:
    """Read the `manifest.toml` of a series bundle; ValueError says which field is wrong and what was expected."""
    data = wire.read_toml(manifest_bytes)
    if data.get("kind") not in KINDS:
        raise ValueError(f"kind is {data.get('kind')!r}, expected one of {', '.join(KINDS)}")
    values: dict[str, Any] = dict(data)
    values["view"] = parse_view(data.get("view", {}))
    values["scaler"] = wire.build(Scaler, data.get("scaler", {}), "scaler")
    for name, section in (("calibration", Calibration), ("interval", Interval)):
        values[name] = wire.build(section, data[name], name) if name in data else None
    values["variants"] = wire.build_variants(data.get("variants"))
    manifest: SeriesManifest = wire.build(SeriesManifest, values, "manifest")
    _check(manifest)
    return manifest


def parse_view(data: Any) -> FeatureView:
    """A view from plain data (TOML or JSON); ValueError says which field is wrong."""
    if not isinstance(data, dict):
        raise ValueError(f"view: expected a table, found {type(data).__name__}")
    values = dict(data)
    for name, kind in (("tags", TagView), ("features", Feature)):
        items = data.get(name)
        if not isinstance(items, (list, tuple)) or not items:
            raise ValueError(f"view: expected at least one [[view.{name}]] table")
        values[name] = tuple(wire.build(kind, item, f"view.{name}[{i}]") for i, item in enumerate(items))
    further: tuple[tuple[str, type], ...] = (("regimes", Regime), ("blends", Blend))
    for name, kind_of in further:
        items = data.get(name, ())
        if not isinstance(items, (list, tuple)):
            raise ValueError(f"view.{name}: expected tables, found {type(items).__name__}")
        built = (wire.build(kind_of, item, f"view.{name}[{i}]") for i, item in enumerate(items))
        values[name] = tuple(_floats(item, f"view.{name}[{i}]") for i, item in enumerate(built))
    view: FeatureView = wire.build(FeatureView, values, "view")
    check_view(view)
    return view


def _floats(item: Any, where: str) -> Any:
    """`item` with the numbers of its lists as floats; ValueError where one is not finite."""
    lists = {name: value for name, value in vars(item).items() if isinstance(value, tuple)}
    for name, values in lists.items():
        if not all(_finite(value) for value in values):
            raise ValueError(f"{where}: {name} must hold finite numbers alone")
    return replace(item, **{name: tuple(map(float, values)) for name, values in lists.items()})


def check_view(view: FeatureView) -> None:
    """ValueError where a view cannot be computed."""
    names = view.tag_names
    if len(set(names)) != len(names) or not all(NAME.fullmatch(name) for name in names):
        raise ValueError(f"view.tags: expected different names of 1 to 128 characters, found {', '.join(names)}")
    if len(names) > TAGS_LIMIT:
        raise ValueError(f"view.tags: {len(names)} tags, expected at most {TAGS_LIMIT}")
    if not 0 < view.grid_s < math.inf:
        raise ValueError(f"view: grid_s is {view.grid_s}, expected seconds > 0")
    if min(view.window_rows, view.history_rows, view.step_rows) < 1 or view.rows > ROWS_LIMIT:
        raise ValueError(f"view: window_rows, history_rows and step_rows must be 1 or more, at most {ROWS_LIMIT} rows")
    for tag in view.tags:
        if tag.resample not in ("last", "mean"):
            raise ValueError(f"view.tags: resample of {tag.name!r} is {tag.resample!r}, expected last or mean")
        if not 0 <= tag.hold_s < math.inf or not 0 <= tag.stale_s < math.inf:
            raise ValueError(f"view.tags: hold_s and stale_s of {tag.name!r} must be seconds of 0 or more")
    if not 0 <= view.min_rows <= view.window_rows:
        raise ValueError(f"view: min_rows is {view.min_rows}, expected 0 to window_rows ({view.window_rows})")
    _check_regimes(view)
    for i, blend in enumerate(view.blends):
        if not NAME.fullmatch(blend.name) or view.signal_names.count(blend.name) > 1:
            raise ValueError(f"view.blends[{i}]: the name {blend.name!r} is empty or taken")
        if len(blend.weights) != len(view.tags) or not _finite(blend.offset):
            raise ValueError(f"view.blends[{i}]: expected {len(view.tags)} weights and a finite offset")
    for i, feature in enumerate(view.features):
        _check_feature(feature, view, f"view.features[{i}]")
    if len(view.columns()) > COLUMNS_LIMIT:
        raise ValueError(f"view.features: {len(view.columns())} columns, expected at most {COLUMNS_LIMIT}")


def _check_regimes(view: FeatureView) -> None:
    if unknown := [name for name in view.settings if name not in view.tag_names]:
        raise ValueError(f"view.settings: tag {unknown[0]!r} is not in the view; it has {', '.join(view.tag_names)}")
    scales = view.setting_scale
    if len(scales) != len(view.settings) or not all(_finite(v) and v > 0 for v in scales):
        raise ValueError("view.setting_scale: expected one finite number > 0 for each of view.settings")
    if len(view.regimes) > REGIMES_LIMIT or (view.settings and not view.regimes):
        raise ValueError(
            f"view.regimes: {len(view.regimes)} regimes, expected at most {REGIMES_LIMIT}, 1 with settings"
        )
    for i, regime in enumerate(view.regimes):
        sizes = (len(regime.center), len(regime.mean), len(regime.scale))
        if sizes != (len(view.settings), len(view.tags), len(view.tags)):
            raise ValueError(
                f"view.regimes[{i}]: expected {len(view.settings)} numbers in center and {len(view.tags)} in mean and "
                "in scale"
            )
        if not all(scale > 0 for scale in regime.scale):
            raise ValueError(f"view.regimes[{i}]: expected scales > 0")


def _check_feature(feature: Feature, view: FeatureView, where: str) -> None:
    if feature.kind not in FEATURE_KINDS:
        raise ValueError(f"{where}: kind is {feature.kind!r}, expected one of {', '.join(FEATURE_KINDS)}")
    if unknown := [name for name in feature.tags if name not in view.signal_names]:
        raise ValueError(f"{where}: tag {unknown[0]!r} is not in the view; it has {', '.join(view.signal_names)}")
    if not 0 <= feature.rows <= view.window_rows:
        raise ValueError(f"{where}: rows is {feature.rows}, expected 0 to window_rows ({view.window_rows})")
    if feature.kind in PAIRED and len(feature.tags) != 2:
        raise ValueError(f"{where}: {feature.kind} needs exactly two tags, found {len(feature.tags)}")
    rows, nyquist_hz = feature.rows or view.window_rows, 0.5 / view.grid_s
    if feature.kind in BANDED:
        if view.min_rows:
            raise ValueError(f"{where}: {feature.kind} needs its whole window, but min_rows is {view.min_rows}")
        if not 0 <= feature.low_hz < feature.high_hz <= nyquist_hz * (1 + 1e-9):
            raise ValueError(
                f"{where}: the band must be 0 <= low_hz < high_hz <= {nyquist_hz:g}, found {feature.low_hz} and "
                f"{feature.high_hz}"
            )
        if feature.high_hz - feature.low_hz < 1 / (rows * view.grid_s):
            raise ValueError(f"{where}: {rows} rows resolve {1 / (rows * view.grid_s):g} Hz, the band is narrower")


def _columns(feature: Feature, view: FeatureView) -> list[tuple[str, tuple[str, ...]]]:
    tags = feature.tags or view.tag_names
    rows = f",{feature.rows}" if feature.rows and feature.kind != "value" else ""
    band = f",{feature.low_hz:g}-{feature.high_hz:g}Hz" if feature.kind in BANDED else ""
    if feature.kind in (*PAIRED, *POOLED):
        return [(f"{feature.kind}({'|'.join(tags)}{rows})", tags)]
    return [(f"{feature.kind}({name}{rows}{band})", (name,)) for name in tags]


def _check(m: SeriesManifest) -> None:
    if m.view.digest() != m.view_sha256:
        raise ValueError(
            f"view_sha256 is {m.view_sha256[:12]}…, but the view's own is {m.view.digest()[:12]}…: the model was not "
            "trained with this view"
        )
    columns = len(m.view.columns())
    if len(m.scaler.center) != columns or len(m.scaler.scale) != columns:
        raise ValueError(
            f"scaler: the view has {columns} columns, found {len(m.scaler.center)} centers and {len(m.scaler.scale)} "
            "scales"
        )
    if not all(_finite(v) for v in m.scaler.center) or not all(_finite(v) and v > 0 for v in m.scaler.scale):
        raise ValueError("scaler: expected finite centers and finite scales > 0")
    if not 0 < m.scaler.clip < math.inf:
        raise ValueError(f"scaler: clip is {m.scaler.clip}, expected > 0")
    if m.contributions not in CONTRIBUTIONS:
        raise ValueError(f"contributions is {m.contributions!r}, expected one of {', '.join(CONTRIBUTIONS)}")
    if (m.calibration is not None, m.interval is not None) != (m.kind == "anomaly", m.kind == "rul"):
        raise ValueError(f"a bundle of kind {m.kind} has [{'interval' if m.kind == 'rul' else 'calibration'}] alone")
    if m.calibration is not None:
        _check_calibration(m.calibration)
    if m.interval is not None:
        _check_interval(m.interval)
    wire.check_files(m.variants, m.files)


def _check_calibration(c: Calibration) -> None:
    if not _finite(c.threshold):
        raise ValueError(f"calibration: threshold is {c.threshold}, expected a finite number")
    if not 0 < c.false_alarm_rate < 1:
        raise ValueError(f"calibration: false_alarm_rate is {c.false_alarm_rate}, expected between 0 and 1")
    if c.smoothing not in SMOOTHINGS or not 1 <= c.smooth_rows <= 100_000:
        raise ValueError(
            f"calibration: expected smoothing of {', '.join(SMOOTHINGS)} and smooth_rows of 1 or more, found "
            f"{c.smoothing!r} and {c.smooth_rows}"
        )
    for name, level in c.levels.items():
        if not _finite(level) or level < c.threshold:
            raise ValueError(f"calibration.levels: {name} is {level}, expected at least the threshold {c.threshold}")


def _check_interval(i: Interval) -> None:
    if not 0 < i.cap < math.inf or not 0 < i.coverage < 1:
        raise ValueError(f"interval: expected cap > 0 and coverage between 0 and 1, found {i.cap} and {i.coverage}")
    if not _finite(i.lower_offset) or not _finite(i.upper_offset):
        raise ValueError("interval: expected finite offsets")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
