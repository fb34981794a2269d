"""A configuration as a release: what it may say, what it is laid over, and how its trial begins and ends."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from edge_runtime import config
from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.update import config_trial, records, states
from edge_runtime.update.config_bundle import SLOT_SET, VARIABLE, merge, read_config_release, read_overlay
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.update.store import Store, address
from edge_runtime.wire.update_status import UpdateState

DEVICE = """
[device]
id = "edge1"
state_dir = "state"
[plc]
host = "10.0.0.5"
[plc.map]
part_seq = 1
[broker]
host = "broker"
tls = true
[[endpoints]]
name = "pump"
[[tags]]
name = "bearing"
endpoint = "pump"
address = 0
unit = "mm/s"
[[assets]]
name = "pump-1"
bundles = { anomaly = "a" }
report_s = 5.0
"""
GOOD = """
[plc]
poll_ms = 2.0
[plc.map]
part_seq = 40
[control]
deadline_ms = 30.0
[[tags]]
name = "bearing"
address = 7
[[tags]]
name = "oil"
endpoint = "pump"
address = 9
[[assets]]
name = "pump-1"
report_s = 60.0
"""


def release(folder: Path, text: str = GOOD) -> Path:
    """The folder of a configuration."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.toml").write_text(
        f'schema = 1\nkind = "config"\nname = "line"\nversion = "1"\n[files]\n"config.toml" = "{sha256}"\n'
    )
    return folder


def stored(state_dir: Path, text: str) -> str:
    """The hash of a configuration that lies in the store."""
    folder = release(state_dir / "made" / hashlib.sha256(text.encode()).hexdigest()[:8], text)
    sha256 = address(folder)
    Store(state_dir).put(sha256, lambda into: shutil.copytree(folder, into))
    return sha256


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device.toml"
    path.write_text(DEVICE)
    return path


def test_a_confirmed_configuration_lies_over_the_devices_own(device: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    records.write(state_dir, SLOT_SET, SlotRecord(UpdateState.CONFIRMED, None, Release(stored(state_dir, GOOD))))
    loaded = config.load_device(device)
    assert (loaded.plc.poll_ms, loaded.plc.map.part_seq, loaded.control.deadline_ms) == (2.0, 40, 30.0)
    assert (loaded.plc.host, loaded.broker.host, loaded.device.id) == ("10.0.0.5", "broker", "edge1")
    assert [(t.name, t.address, t.unit) for t in loaded.tags] == [("bearing", 7, "mm/s"), ("oil", 9, "")]
    assert loaded.assets[0].report_s == 60.0
    assert loaded.assets[0].slot_sets == {"asset-pump-1-anomaly": tmp_path / "a"}


def test_what_was_chosen_at_the_start_holds_for_the_processes(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dir = tmp_path / "state"
    records.write(state_dir, SLOT_SET, SlotRecord(UpdateState.CONFIRMED, None, Release(stored(state_dir, GOOD))))
    monkeypatch.setenv(VARIABLE, "")
    assert config.load_device(device).control.deadline_ms == 20.0
    monkeypatch.setenv(VARIABLE, str(release(tmp_path / "other", "[control]\ndeadline_ms = 50.0\n")))
    assert config.load_device(device).control.deadline_ms == 50.0


FORBIDDEN = [
    ('[device]\nid = "other"', "[device] is the device's own"),
    ('[broker]\nhost = "evil"', "[broker] is the device's own"),
    ('[broker]\npassword_file = "x"', "[broker] is the device's own"),
    ('[cloud]\npublic_key = "x"', "[cloud] is the device's own"),
    ("[update]\nallow_local = true", "[update] is the device's own"),
    ("[identity]\nx = 1", "[identity] is the device's own"),
    ('[[endpoints]]\nname = "x"', "[endpoints] is the device's own"),
    ('[commands]\nallow = ["x"]', "[commands] is the device's own"),
    ('[bundle]\npath = "x"', "[bundle] is the device's own"),
    ("[link]\nuns = 'all'", "[link] is the device's own"),
    ("[storage]\nbudget_bytes = 1", "[storage] is the device's own"),
    ('[plc]\nhost = "evil"', "plc.host is the device's own"),
    ("[control]\nshare_review_frames = true", "control.share_review_frames is the device's own"),
    ('[[assets]]\nname = "pump-1"\nbundles = { anomaly = "/tmp/x" }', "assets.bundles is the device's own"),
    ("plc = 3", "plc must be a table"),
    ("tags = 3", "tags must be a list of tables"),
    ("[[tags]]\naddress = 3", "needs a name of its own"),
    ('[[tags]]\nname = "a"\n[[tags]]\nname = "a"', "needs a name of its own"),
    ("[plc", "cannot be read"),
    ("a" * 300_000, "over the limit"),
]


@pytest.mark.parametrize(("text", "told"), FORBIDDEN, ids=[told[:40] for _, told in FORBIDDEN])
def test_what_is_the_devices_own_stays_so(text: str, told: str, tmp_path: Path) -> None:
    folder = release(tmp_path / "r", text)
    for read in (lambda: read_overlay(folder / "config.toml"), lambda: read_config_release(folder)):
        with pytest.raises(ConfigError) as caught:
            read()
        assert told in str(caught.value)


def test_a_configuration_that_does_not_fit_this_device_is_told(device: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for text, told in (
        ('[[tags]]\nname = "x"\nendpoint = "none"\naddress = 1', "no endpoint 'none'"),
        ("[plc.map]\nx = 1", "plc.map.x"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"configuration of a release over it.*{told}"):
            config.with_overlay(device, read_overlay(path))


def test_the_folder_is_what_its_manifest_names(tmp_path: Path) -> None:
    assert read_config_release(release(tmp_path / "a")).version == "1"
    (tmp_path / "a/more").write_text("")
    with pytest.raises(BundleError, match="and nothing else"):
        read_config_release(tmp_path / "a")
    (release(tmp_path / "b") / "config.toml").write_text("")
    with pytest.raises(BundleError, match="is not the file that the manifest names"):
        read_config_release(tmp_path / "b")


def test_merging_changes_neither_side() -> None:
    device, overlay = (
        {"plc": {"map": {"a": 1}}, "tags": [{"name": "x", "u": 1}]},
        {"plc": {"map": {"b": 2}}, "tags": [{"name": "x", "u": 2}]},
    )
    assert merge(device, overlay) == {"plc": {"map": {"a": 1, "b": 2}}, "tags": [{"name": "x", "u": 2}]}
    assert device == {"plc": {"map": {"a": 1}}, "tags": [{"name": "x", "u": 1}]}


# ── trial ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_start_spends_a_try_and_then_the_confirmed_one_holds(tmp_path: Path) -> None:
    old, new = stored(tmp_path, GOOD), stored(tmp_path, "[control]\ndeadline_ms = 50.0\n")
    store = Store(tmp_path)
    records.write(tmp_path, SLOT_SET, SlotRecord(UpdateState.TRIAL, Job(Release(new), "", 3, 2), Release(old)))
    assert [config_trial.begin(tmp_path, 1) for _ in range(2)] == [store.path(new)] * 2
    assert config_trial.begin(tmp_path, 1) == store.path(old)
    record = records.read(tmp_path, SLOT_SET).record
    assert (record.state, record.confirmed, record.refused) == (UpdateState.ROLLED_BACK, Release(old), {new: 3})
    assert config_trial.begin(tmp_path, 1) == store.path(old)


def test_a_damaged_candidate_is_rolled_back_unstarted(tmp_path: Path) -> None:
    new = stored(tmp_path, GOOD)
    file = Store(tmp_path).path(new) / "config.toml"
    file.chmod(0o644)
    file.write_text("")
    records.write(tmp_path, SLOT_SET, SlotRecord(UpdateState.TRIAL, Job(Release(new), "", 3, 2)))
    assert config_trial.begin(tmp_path, 1) is None
    assert records.read(tmp_path, SLOT_SET).record.state is UpdateState.ROLLED_BACK


def test_nothing_installed_is_nothing_chosen(tmp_path: Path) -> None:
    assert config_trial.begin(tmp_path, 1) is None


def test_a_confirmed_trial_is_no_trial(tmp_path: Path) -> None:
    new = stored(tmp_path, GOOD)
    records.write(tmp_path, SLOT_SET, states.confirm(SlotRecord(UpdateState.TRIAL, Job(Release(new), "", 3, 0))))
    assert config_trial.begin(tmp_path, 1) == Store(tmp_path).path(new)


def test_records_that_say_nothing_stop_the_start_with_what_to_do(tmp_path: Path) -> None:
    folder = records.folder_of(tmp_path, SLOT_SET)
    folder.mkdir(parents=True)
    for name in records.NAMES:
        (folder / name).write_bytes(os.urandom(100))
    with pytest.raises(ConfigError, match=r"both records .* damaged.*to start without it, move .* away"):
        config_trial.begin(tmp_path, 1)
