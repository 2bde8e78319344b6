"""The demo: one model's life on real flights, told by a running installation.

Everything goes through the public client. The story's acts only wait for what Predis does by itself: the alert, the retraining, the
promotion and the abort are not called from here. Every figure in the report is read off the run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from predis import settings as settings_table
from predis import telemetry
from predis.app.cache import cache_missing, cache_url
from predis.app.serve import check_port
from predis.client import Client
from predis.demo import flights as data
from predis.demo import slow_data
from predis.demo.replay import BURST, Replay
from predis.demo.screen import Milestone, Scene, Screen
from predis.errors import HomeInUse, PredisError, RolloutInProgress, SetupError
from predis.settings import Settings
from predis.stats import auc, compare_auc
from predis.supervisor import Supervisor

if TYPE_CHECKING:
    import pandas as pd

    from predis.nearcache.sync import NearRedis

ENDPOINT = MODEL = "flight-delay"
LABEL = "late"
HOME = Path(".predis-demo")
_MARK = "demo"  # a file that says this home may be replaced by the next demo
TRAIN_UNTIL = "2013-04-01"
HOLDOUT_DAYS = 17.0
FLIGHTS = 150_000
# After the promotion: flights that measure the renewed model, before the broken one comes. At least some thousands; more
# while there is time, for two cores are to see the end within four minutes.
LEAST_MEASURED, MOST_MEASURED = 8_000, 60_000
MEASURE_UNTIL_S = 125.0
# Flights kept for the broken model: its gates need some thousands of answers and labels, however fast the flights go by.
LEFT_FOR_THE_END = 35_000
AFTER_FLIGHTS = 2_000
_READY_S, _SETTLE_S = 30.0, 20.0

DEMO_SETTINGS: Mapping[str, Any] = {
    "window_rows": 5_000,
    "label_window_rows": 6_000,
    "decay_margin": 0.01,
    "retrain_cooldown_s": 5.0,
    "log_level": "warning",
}
# Late flights come by the day: a storm delays everybody. A test of a few days would measure its weather, so half of the log decides.
RETRAINING: Mapping[str, Any] = {
    "train": "predis.demo.training:train",
    "label": LABEL,
    "on": ["performance"],
    "holdout_share": 0.5,
    "plan": {"steps": [0.1, 0.5], "bake_s": 1.0},
}


@dataclass
class Figures:
    """What the report holds. None: the story did not get there."""

    requests: int = 0
    failed_requests: int = 0
    predictions_counted: int = 0
    feedback_sent: int = 0
    feedback_stored: int = 0
    auc_reference: float | None = None
    auc_frozen: float | None = None
    auc_after_retraining: float | None = None
    auc_gain_low: float | None = None
    auc_gain_high: float | None = None
    auc_compared_flights: int = 0
    alert_severity: str | None = None
    retrained_version: int | None = None
    challenger_auc_out_of_time: float | None = None
    champion_auc_out_of_time: float | None = None
    challenger_p_value: float | None = None
    promoted: bool = False
    broken_version: int | None = None
    broken_version_aborted: bool = False
    broken_predictions: int = 0
    abort_seconds: float | None = None
    restarts: int = 0
    features_read: int = 0
    features_from_process: int = 0
    features_loaded: int = 0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    requests_per_second: float = 0.0
    seconds: float = 0.0
    milestones: list[dict[str, Any]] = field(default_factory=list)


def tell(flags: Mapping[str, Any], *, report: Path | None, keep: bool, flights: int | None) -> None:
    """Run the story, print what happened, write the report.

    Exits with 1 where the story did not come to its end.

    Raises:
        SetupError: Predis cannot start here.
    """
    if report is not None and not report.absolute().parent.is_dir():
        raise SetupError(f"the report cannot be written: there is no folder {report.absolute().parent}")
    settings = demo_settings(flags)
    telemetry.configure("demo", style=settings.log_format, level=settings.log_level)
    story = Story(settings, total=flights or FLIGHTS)
    try:
        story.run()
        story.print_summary(keep=keep)
        if report is not None:
            report.write_text(json.dumps(vars(story.figures), indent=2) + "\n")
        if keep:
            story.stay()
    except KeyboardInterrupt:
        Console().print("stopping")
    finally:
        story.close()
    if not story.complete():
        sys.exit(1)


def demo_settings(flags: Mapping[str, Any]) -> Settings:
    """Settings of the demo: its own, under those of the caller; a fresh home, and free ports where none are asked for."""
    chosen = {**DEMO_SETTINGS, **{name: value for name, value in flags.items() if value is not None}}
    chosen.setdefault("home", HOME)
    settings = settings_table.load(chosen)
    _fresh(settings.home)
    for name in ("control_port", "http_port", "grpc_port", "cache_port"):
        if flags.get(name) is None and not _free(settings.host, getattr(settings, name)):
            chosen[name] = _any_port(settings.host)
    return settings_table.load(chosen)


class Story:
    """The acts of the demo, in order."""

    def __init__(self, settings: Settings, *, total: int) -> None:
        self.figures = Figures()
        self._settings = settings
        self._total = total
        self._started = time.monotonic()
        self._scene = Scene()
        self._url = (
            f"http://{settings.host}:{settings.control_port}",
            f"http://{settings.host}:{settings.http_port}",
        )
        self._client = Client(*self._url, retry_s=30.0)
        self._supervisor = Supervisor(settings, on_restart=self._on_restart)
        self._folder = tempfile.TemporaryDirectory(prefix="predis-demo-")
        self._replay: Replay | None = None
        self._cache: NearRedis | None = None
        self._seen: dict[str, str] = {}
        self._sent_at: tuple[float, int] = (0.0, 0)

    def run(self) -> None:
        """All acts; at the end ``figures`` are complete."""
        self._supervisor.start()
        with Screen(self._look):
            self._act("reading 2013")
            frame = data.load()
            train = frame[frame["scheduled"] < TRAIN_UNTIL]
            later = frame[frame["scheduled"] >= TRAIN_UNTIL].head(self._total).reset_index(drop=True)
            self._act("training on January to mid-March")
            self._wait_ready()
            self._first_model(train)
            broken = self._fit(train, name="broken", inverted=True)
            lookups = self._open_cache(later)
            self._replay = replay = Replay(
                self._client, ENDPOINT, flights=later, prefix="flight", lookups=lookups
            )
            self._scene.total = replay.total
            replay_started = time.monotonic()
            self._act("flying")
            replay.run(lambda sent: not self._promoted())
            promoted_at = replay.progress.requests
            self._act("measuring the renewed model")
            replay.run(lambda sent: self._measuring(sent - promoted_at, replay=replay))
            if self.figures.promoted:
                self._break(broken, replay, signature=_signature(train))
            self.figures.requests_per_second = replay.progress.requests / (time.monotonic() - replay_started)
            self._act("counting")
            self._settle(replay)
            self._measure(replay, later, train=train)
        self.figures.seconds = round(time.monotonic() - self._started, 1)
        self.figures.milestones = [vars(milestone) for milestone in self._scene.milestones]

    def complete(self) -> bool:
        """Whether the story came to its end."""
        f = self.figures
        return f.promoted and f.broken_version_aborted and f.failed_requests == 0

    def stay(self) -> None:
        """Leave everything up until Ctrl-C."""
        Console().print("Everything is still up. Ctrl-C stops it.")
        self._supervisor.wait()

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()
        self._supervisor.stop()
        self._folder.cleanup()

    # -- the acts ------------------------------------------------------------------------------------------------------

    def _first_model(self, train: pd.DataFrame) -> None:
        """Train on all but the newest weeks of January to March, whose flights give the metrics; register; deploy."""
        earlier, newest = data.holdout(train, days=HOLDOUT_DAYS)
        file = self._fit(earlier, name="model")
        folder = file.parent
        tables = {"reference": _table(earlier), "holdout": _table(newest), "training": _table(train)}
        paths = {name: _parquet(folder / f"{name}.parquet", table) for name, table in tables.items()}
        version = self._client.register(
            MODEL,
            file,
            format="lightgbm",
            label=LABEL,
            signature=_signature(earlier),
            lineage={"story": "first"},
            **paths,
        )
        metrics = version["metrics"]
        self.figures.auc_reference = metrics["auc"]
        quality = f"AUC {metrics['auc']:.3f}, KS {metrics['ks']:.3f}, Gini {metrics['gini']:.3f}"
        self._say(
            f"version {version['version']} registered: {quality} on {metrics['rows']:,.0f} held-out flights"
        )
        self._client.create_endpoint(ENDPOINT, MODEL, config={"retraining": dict(RETRAINING)})
        self._wait(self._client.deploy(ENDPOINT, version["version"], strategy="direct")["id"])
        self._say(f"endpoint {ENDPOINT} answers with version {version['version']}")

    def _open_cache(self, flights: pd.DataFrame) -> slow_data.Lookups | None:
        """Put weather and planes into a database, declare them as sources; the replay reads them through the cache from here on."""
        missing = cache_missing(self._settings)
        if missing:
            self._say(f"features are not read through the cache: {missing}")
            return None
        from predis import nearcache

        path = self._settings.home / slow_data.FILE
        slow_data.write(path)
        for name, source in slow_data.sources(path).items():
            self._client.add_cache_source(name, source)
        self._wait_for_sources(f"plane:{flights['tailnum'].dropna().iloc[0]}")
        self._cache = nearcache.connect(cache_url(self._settings), prefixes=("weather:", "plane:"))
        self._say("weather and planes are read through the cache, out of a database of their own")
        return slow_data.Lookups(self._cache, flights)

    def _wait_for_sources(self, key: str) -> None:
        """Until the gateway loads this key, which the database has."""
        import redis

        deadline = time.monotonic() + _READY_S
        with redis.Redis.from_url(cache_url(self._settings)) as client:
            while client.get(key) is None:
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"the cache does not load {key}; `predis cache source test {key}` says why"
                    )
                time.sleep(0.05)

    def _break(self, file: Path, replay: Replay, *, signature: dict[str, Any]) -> None:
        """Register the inverted model and deploy it as a canary, and let the gates have it."""
        self._act("deploying a broken version")
        version = self._client.register(
            MODEL,
            file,
            format="lightgbm",
            label=LABEL,
            signature=signature,
            lineage={"story": "labels inverted"},
        )
        self.figures.broken_version = version["version"]
        rollout = self._deploy_when_free(version["version"], replay)
        ended: dict[str, Any] = {}

        def going_on(_sent: int) -> bool:
            ended.update(self._client.rollout(rollout))
            return ended["ended_at"] is None

        replay.run(going_on)
        ended.update(
            self._client.rollout(rollout)
        )  # it may still be running, where there are no more flights
        until = replay.progress.requests + AFTER_FLIGHTS
        replay.run(lambda sent: sent < until)
        self.figures.broken_version_aborted = ended["state"] == "aborted"

    def _deploy_when_free(self, version: int, replay: Replay) -> int:
        """Start a canary; while another rollout holds the endpoint, the flights go on."""
        while True:
            try:
                return int(self._client.deploy(ENDPOINT, version, plan=dict(RETRAINING["plan"]))["id"])
            except RolloutInProgress:
                until = replay.progress.requests + BURST
                replay.run(lambda sent, until=until: sent < until)  # type: ignore[misc]

    def _settle(self, replay: Replay) -> None:
        """Wait until everything sent has been counted, then read the figures."""
        progress, figures = replay.progress, self.figures
        deadline = time.monotonic() + _SETTLE_S
        answered = int((progress.versions > 0).sum())
        while True:
            endpoint = self._client.overview(ENDPOINT)["endpoints"][0]
            labels = endpoint["labels"]
            done = labels["predictions"] >= answered and labels["feedback"]["waiting"] == 0
            if done or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        figures.requests = progress.requests
        figures.failed_requests = progress.failed
        figures.predictions_counted = labels["predictions"]
        figures.feedback_sent = progress.feedback_sent
        figures.feedback_stored = labels["feedback"]["stored"]
        figures.latency_p50_ms = endpoint["latency_ms"]["p50"]
        figures.latency_p99_ms = endpoint["latency_ms"]["p99"]
        self._read_abort(endpoint)
        self._read_cache()

    def _read_abort(self, endpoint: dict[str, Any]) -> None:
        """Seconds from the decision to abort to the broken version's last answer; 0 where the last came before."""
        figures = self.figures
        broken = next((v for v in endpoint["versions"] if v["version"] == figures.broken_version), None)
        if broken is None or not figures.broken_version_aborted:
            return
        rollout = next(r for r in self._client.rollouts(ENDPOINT) if r["candidate"] == figures.broken_version)
        figures.broken_predictions = broken["rows"]
        last, decided = broken["last_at_ns"], rollout["ended_at_ns"]
        figures.abort_seconds = round(max(0.0, (last - decided) / 1e9), 3)

    def _read_cache(self) -> None:
        """How many features were read, by this process's memory and in all, and how many of their keys were loaded."""
        if self._cache is None:
            return
        stats, figures = self._cache.near.stats, self.figures
        figures.features_read = stats.hits + stats.misses
        figures.features_from_process = stats.hits
        sources = self._client.cache_insight()["sources"]
        figures.features_loaded = sum(int(source["loads"]) for source in sources)

    def _measure(self, replay: Replay, later: pd.DataFrame, *, train: pd.DataFrame) -> None:
        """Frozen against renewed model on the same flights: those that the renewed version answered once it was promoted."""
        figures = self.figures
        if figures.retrained_version is None:
            return
        chosen = np.flatnonzero(replay.progress.versions == figures.retrained_version)
        if not len(chosen):
            return
        levels = data.levels(data.holdout(train, days=HOLDOUT_DAYS)[0])
        frozen = data.score(
            _booster(Path(self._folder.name) / "model" / "model.txt"), later.iloc[chosen], levels=levels
        )
        labels = replay.labels()[chosen]
        found = compare_auc(frozen, replay.progress.scores[chosen], label=labels)
        figures.auc_compared_flights = len(chosen)
        figures.auc_frozen = round(auc(frozen, labels), 4)
        figures.auc_after_retraining = round(found.challenger_auc, 4)
        figures.auc_gain_low, figures.auc_gain_high = round(found.low, 4), round(found.high, 4)

    # -- what happens meanwhile ----------------------------------------------------------------------------------------

    def _look(self) -> Scene:
        """The scene now, with what Predis did since the last look."""
        scene, replay = self._scene, self._replay
        if replay is None:
            return scene
        scene.moment, scene.sent = replay.moment(), replay.progress.requests
        before_at, before = self._sent_at
        now = time.monotonic()
        if now - before_at >= 2.0:
            scene.per_second = (scene.sent - before) / (now - before_at) if before_at else 0.0
            self._sent_at = (now, scene.sent)
        try:
            scene.overview = Client(*self._url, retry_s=0.0).overview(ENDPOINT)
        except PredisError:  # control may be starting again; the next look will find it
            return scene
        self._notice(scene.overview)
        return scene

    def _notice(self, overview: dict[str, Any]) -> None:
        for alert in reversed(overview["alerts"]):
            if alert["kind"] == "performance":
                self.figures.alert_severity = self.figures.alert_severity or alert["severity"]
            if alert["severity"] in ("critical", "emergency") or alert["kind"] == "drift":
                self._tell_once(
                    f"alert-{alert['id']}-{alert['severity']}",
                    f"{alert['severity'].upper()} alert: {alert['message']}",
                )
        for run in reversed(overview["retrainings"]):
            self._notice_run(run)
        for rollout in reversed(overview["rollouts"]):
            if rollout["strategy"] == "canary":
                key = f"rollout-{rollout['id']}-{rollout['state']}-{rollout['step']}"
                share = f" at {rollout['weight']:.0%}" if rollout["state"] == "running" else ""
                self._tell_once(
                    key, f"canary of version {rollout['candidate']}: {rollout['state']}{share}{_why(rollout)}"
                )

    def _notice_run(self, run: dict[str, Any]) -> None:
        figures, detail = self.figures, run["detail"]
        if self._replay is not None:
            busy = run["state"] == "running"
            self._replay.slow.set() if busy else self._replay.slow.clear()
        self._tell_once(f"{run['id']}-start", f"retraining started (trigger: {run['trigger']})")
        if "champion_auc" in detail:
            figures.champion_auc_out_of_time = detail["champion_auc"]
            figures.challenger_auc_out_of_time = detail["challenger_auc"]
            figures.challenger_p_value = detail["p_value"]
            compared = (
                f"challenger {detail['challenger_auc']:.3f} against champion {detail['champion_auc']:.3f} out of time "
                f"(paired DeLong p = {detail['p_value']:.1g}): {detail['decision']}"
            )
            self._tell_once(f"{run['id']}-compared", compared)
        if run["state"] == "failed":
            self._tell_once(f"{run['id']}-failed", f"retraining failed: {detail.get('error', 'see the log')}")
        if run["state"] == "promoted":
            figures.retrained_version, figures.promoted = run["challenger"], True

    def _promoted(self) -> bool:
        return self.figures.promoted

    def _measuring(self, flights: int, *, replay: Replay) -> bool:
        in_time = time.monotonic() - self._started < MEASURE_UNTIL_S
        left = replay.total - replay.progress.requests
        return flights < LEAST_MEASURED or (in_time and flights < MOST_MEASURED and left > LEFT_FOR_THE_END)

    # -- tools ---------------------------------------------------------------------------------------------------------

    def _fit(self, frame: pd.DataFrame, *, name: str, inverted: bool = False) -> Path:
        from predis.demo import training
        from predis.retraining import TrainJob

        output = Path(self._folder.name) / name
        output.mkdir()
        work = training.train_inverted if inverted else training.train
        work(TrainJob(_table(frame), LABEL, output))
        return output / "model.txt"

    def _act(self, name: str) -> None:
        self._scene.act = name

    def _say(self, text: str) -> None:
        seconds = round(time.monotonic() - self._started, 1)
        self._scene.milestones.append(Milestone(seconds, self._scene.moment, text))

    def _tell_once(self, key: str, text: str) -> None:
        if key not in self._seen:
            self._seen[key] = text
            self._say(text)

    def _on_restart(self, name: str, status: int) -> None:
        self.figures.restarts += 1
        self._say(f"{name} ended with status {status} and was started again")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while not self._client.ready():
            if time.monotonic() > deadline:
                raise SetupError(
                    f"the servers did not get ready within {_READY_S:.0f} s; run `predis up` to see why"
                )
            time.sleep(0.05)
        self._say(f"Predis is up; console on {self._url[0]}")

    def _wait(self, rollout: int) -> dict[str, Any]:
        while True:
            found = self._client.rollout(rollout)
            if found["ended_at"]:
                return found
            time.sleep(0.05)

    def print_summary(self, *, keep: bool) -> None:
        """The story as a table with times, the figures, and where to look."""
        console, f = Console(highlight=False), self.figures
        table = Table(title="What happened", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for title, justify in (("second", "right"), ("in 2013", "left"), ("", "left")):
            table.add_column(title, justify=justify)  # type: ignore[arg-type]
        for milestone in self._scene.milestones:
            table.add_row(f"{milestone.seconds:.1f}", milestone.moment, milestone.text)
        console.print(table)
        rows = {
            "requests (failed)": f"{f.requests:,} ({f.failed_requests}), {f.requests_per_second:,.0f} a second",
            "predictions counted": f"{f.predictions_counted:,}",
            "labels sent / stored": f"{f.feedback_sent:,} / {f.feedback_stored:,}",
            "latency p50 / p99": f"{_ms(f.latency_p50_ms)} / {_ms(f.latency_p99_ms)}",
            "features read": f"{f.features_read:,}: {f.features_from_process / max(1, f.features_read):.1%} out of this process's memory, "
            f"{f.features_loaded:,} loaded from the database",
            "AUC frozen / renewed": f"{_auc(f.auc_frozen)} / {_auc(f.auc_after_retraining)} on the same {f.auc_compared_flights:,} flights",
            "broken version": f"turned back after {f.broken_predictions:,} answers; last one {f.abort_seconds} s after the decision"
            if f.broken_version_aborted
            else "not turned back",
            "the whole run": f"{f.seconds:.0f} s",
        }
        figures = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
        for name, value in rows.items():
            figures.add_row(name, value)
        console.print(figures)
        home = self._settings.home
        if keep:
            console.print(
                f"Look around: the console on {self._url[0]}, `predis monitor {ENDPOINT} --control {self._url[0]}`"
            )
        else:
            console.print(
                f"Look around: `predis up --home {home}` opens this installation again; `predis demo --keep` leaves it up"
            )
        if not self.complete():
            console.print(
                "The story did not come to its end; the lines above say how far it got.", style="bold red"
            )


def _table(frame: pd.DataFrame) -> pa.Table:
    """A frame of flights as a table of features and label; missing numbers as nulls."""
    return pa.Table.from_pandas(
        frame[[*data.FEATURES, LABEL]].astype({LABEL: "float64"}), preserve_index=False
    )


def _parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path, compression="zstd")
    return path


def _signature(frame: pd.DataFrame) -> dict[str, Any]:
    """The flights' signature: every number may be missing, for weather stations fail and planes are unknown."""
    levels = data.levels(frame)
    inputs = [
        {"name": name, "datatype": "BYTES", "levels": list(levels[name]), "nullable": True}
        if name in levels
        else {"name": name, "datatype": "FP64", "nullable": True}
        for name in data.FEATURES
    ]
    return {
        "inputs": inputs,
        "outputs": [{"name": "probability", "datatype": "FP64"}],
        "score": "probability",
    }


def _booster(path: Path) -> Any:
    import lightgbm

    return lightgbm.Booster(model_file=str(path))


def _why(rollout: dict[str, Any]) -> str:
    return f" ({rollout['reason']})" if rollout["state"] in ("aborted", "failed") else ""


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def _fresh(home: Path) -> None:
    """An empty home for the demo: what an earlier demo left is replaced, anything else is refused.

    Raises:
        SetupError: the folder holds something that no demo made.
        HomeInUse: a demo runs in it.
    """
    if home.exists() and any(home.iterdir()):
        if not (home / _MARK).exists():
            raise SetupError(
                f"{home} holds an installation that is not a demo's; name another folder with --home"
            )
        from predis.supervisor import claim_home

        probe = settings_table.load({"home": home}, environ={})
        try:
            descriptor = claim_home(probe)
        except HomeInUse:
            raise HomeInUse(f"a demo runs in {home}; stop it, or name another folder with --home") from None
        shutil.rmtree(home)
        os.close(descriptor)
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / _MARK).write_text("made by `predis demo`; the next demo replaces this folder\n")
    except OSError as error:
        from predis.errors import HomeNotWritable

        raise HomeNotWritable(
            f"the home folder {home} cannot be written to ({error.strerror}); name another with --home"
        ) from None


def _free(host: str, port: int) -> bool:
    try:
        check_port(host, port)
    except SetupError:
        return False
    return True


def _any_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
