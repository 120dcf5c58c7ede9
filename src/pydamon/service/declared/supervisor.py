"""Keeps the monitors of a service file running, in one thread: starts them, hears them, reads the file anew."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from pydamon import lean, messages
from pydamon.errors import PydamonError, RequestError
from pydamon.linux.adopting import adopt_orphans, ended
from pydamon.linux.systemd import Manager
from pydamon.plain import printable
from pydamon.run.directory import SERVICE, Claim, NameInUse, RuntimeDirectory, service_directory
from pydamon.service import protocol
from pydamon.service.client import Client
from pydamon.service.declared.changes import change
from pydamon.service.declared.child import Child
from pydamon.service.declared.exporter import export
from pydamon.service.declared.file import Monitor, Service, load
from pydamon.service.declared.helper import Helper, running_monitors
from pydamon.service.protocol import Tune
from pydamon.service.server import ControlServer
from pydamon.service.shipping.settings import Shipping

_WAKE_S = 2.0
_RETAIN_NS = 60_000_000_000
_TUNE_S = 5.0  # for a kdamond to take a change
_FIXED = {"name": "name", "group": "group", "metrics": "metrics", "ship": "shipping"}  # fields, as a Service has them


def run(path: str) -> None:
    """Run the service that the file declares until SIGTERM or Ctrl-C. Raises PydamonError if it cannot be begun."""
    service = load(path)
    with lean.imports():  # before there are processes: they share it; not Arrow, which starts a thread
        import pydamon.service.session  # noqa: F401
    with service_directory(service.name, service.group) as directory:
        claim = _claim(directory, service.name)
        try:
            _Supervisor(service, directory, claim).run()
        finally:
            directory.remove(claim.name)
            os.close(claim.lock_fd)


def _claim(directory: RuntimeDirectory, name: str) -> Claim:
    try:
        claim = directory.claim(name + SERVICE)
    except NameInUse:
        text = f"the service {name} runs already; pydamon service reload {name} has it read its file anew"
        raise RequestError(text, where="name") from None
    claim.write_identity()
    return claim


class _Supervisor:
    def __init__(self, service: Service, directory: RuntimeDirectory, claim: Claim) -> None:
        self._service = service
        self._directory = directory
        self._manager = Manager()
        self._children: dict[str, Child] = {}
        self._helpers: list[Helper] = []
        self._began_ns = time.monotonic_ns()
        self._asked_to_stop = self._asked_to_reload = self._ready = False
        self._stopping = False
        self._retain_ns = 0
        self._life, self._living = os.pipe2(os.O_CLOEXEC)
        self._woken, self._wake_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._server = ControlServer(
            directory.listen(claim.name), self._answer, beat=claim.beat, readers=directory.gid
        )  # fmt: skip

    def run(self) -> None:
        """Until it is to end; nothing that it started is left then."""
        adopt_orphans()
        with self._signals():
            self._server.open()
            self._selector.register(self._server.fileno(), selectors.EVENT_READ)
            for monitor in self._service.monitors:
                self._add(monitor)
            self._help()
            messages.say(f"service {self._service.name}: {len(self._children)} monitors of {self._service.path}")
            try:
                while not self._stopping or self._busy():
                    self._step()
            finally:
                os.close(self._living)  # whatever comes: who is left ends
            messages.say(f"service {self._service.name}: has ended")
            self._server.finish({"service": self._service.name, "state": "ended"})

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            self._asked_to_stop = True

        def reload(number: int, frame: object) -> None:
            self._asked_to_reload = True

        wanted = {
            signal.SIGTERM: stop,
            signal.SIGINT: stop,
            signal.SIGHUP: reload,
            signal.SIGCHLD: lambda number, frame: None,
        }
        old = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        old_wakeup = signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in old.items():
                signal.signal(number, handler)

    def _busy(self) -> bool:
        """Whether anything runs, or is about to."""
        helped = any(helper.pid is not None for helper in self._helpers)
        return helped or any(child.state != "ended" for child in self._children.values())

    def _help(self) -> None:
        """Have metrics told and memory shipped, if the file says so."""
        service = self._service
        if service.metrics is not None:
            metrics = partial(export, service.name, service.metrics, service.shipping)
            self._helpers.append(Helper("metrics", metrics, self._life))
        if service.shipping is not None:
            shipping = partial(_ship, service.shipping, partial(running_monitors, service.name))
            self._helpers.append(Helper("ship", shipping, self._life))

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        for key, _ in self._selector.select(self._wait_s()):
            if key.fileobj == self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            elif isinstance(key.data, Child):
                self._hear(key.data)
        self._server.step()
        self._reap()
        if self._asked_to_stop and not self._stopping:
            self._stop()
        if self._asked_to_reload:
            self._asked_to_reload = False
            with contextlib.suppress(PydamonError):  # it was said
                self._reload()
        self._act()
        self._tell()

    def _wait_s(self) -> float:
        now_ns = time.monotonic_ns()
        due = [child.due_ns for child in self._children.values() if child.due_ns is not None]
        due += [helper.due_ns for helper in self._helpers if helper.due_ns is not None]
        watched = self._manager.watchdog_s
        first_s = min((max(each - now_ns, 0) / 1e9 for each in due), default=_WAKE_S)
        return min(first_s, _WAKE_S, _WAKE_S if watched is None else watched / 2)

    def _hear(self, child: Child) -> None:
        if child.starting is not None:
            fd = child.starting.fd
            child.listen()
            if child.starting is None:
                self._selector.unregister(fd)

    def _reap(self) -> None:
        now_ns = time.monotonic_ns()
        for pid, status in ended():
            helper = next((helper for helper in self._helpers if helper.pid == pid), None)
            if helper is not None:
                helper.ended(status, now_ns)
                continue
            if all(child.pid != pid for child in self._children.values()):
                self._hear_all()  # it may have told who it is just before it ended
            for child in self._children.values():
                if child.pid == pid:
                    if child.starting is not None:
                        self._selector.unregister(child.starting.fd)
                    child.ended(status, now_ns)

    def _hear_all(self) -> None:
        for key, _ in self._selector.select(0):
            if isinstance(key.data, Child):
                self._hear(key.data)

    def _act(self) -> None:
        now_ns = time.monotonic_ns()
        wanted = {monitor.name for monitor in self._service.monitors}
        self._children = {
            name: child for name, child in self._children.items() if name in wanted or child.state != "ended"
        }
        for child in self._children.values():
            before = child.starting
            child.act(now_ns)
            if child.starting is not None and child.starting is not before:
                self._selector.register(child.starting.fd, selectors.EVENT_READ, child)
        for helper in self._helpers:
            helper.act(now_ns)
        if now_ns >= self._retain_ns:
            self._retain_ns = now_ns + _RETAIN_NS
            for child in self._children.values():
                child.retain()

    def _tell(self) -> None:
        states = [child.state for child in self._children.values()]
        if not self._ready and "starting" not in states and not self._stopping:
            self._ready = True
            self._manager.ready()
        self._manager.alive()
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        self._manager.status(f"{len(states)} monitors: {', '.join(counts)}")

    # -- the file -----------------------------------------------------------------------------------------------------

    def _add(self, monitor: Monitor) -> None:
        self._children[monitor.name] = Child(monitor, self._directory, self._life)

    def _stop(self) -> None:
        self._stopping = True
        self._manager.stopping()
        for child in self._children.values():
            child.stop(time.monotonic_ns())
        for helper in self._helpers:
            helper.stop(time.monotonic_ns())

    def _reload(self) -> dict[str, Any]:
        """Read the file anew, and have what runs be as it says. Raises PydamonError, and all stays as it is then."""
        self._manager.reloading()
        try:
            done = self._change(self._read())
        except PydamonError as error:
            messages.say(f"the file is not taken, all goes on as before: {error}")
            raise
        finally:
            self._manager.ready()
        words = [f"{what}: {', '.join(names)}" for what, names in done.items() if names]
        messages.say(f"service {self._service.name}: read anew; {'; '.join(words) or 'nothing has changed'}")
        return done

    def _read(self) -> Service:
        new, old = load(self._service.path), self._service
        for field, attribute in _FIXED.items():
            if getattr(new, attribute) != getattr(old, attribute):
                raise RequestError("cannot be changed while it runs; stop the service and start it anew", where=field)
        return new

    def _change(self, new: Service) -> dict[str, Any]:
        done: dict[str, Any] = {"started": [], "stopped": [], "restarted": [], "tuned": [], "problems": []}
        now_ns, wanted = time.monotonic_ns(), {monitor.name: monitor for monitor in new.monitors}
        for name in [name for name in self._children if name not in wanted]:
            self._children[name].stop(now_ns)
            done["stopped"].append(name)
        for name, monitor in wanted.items():
            child = self._children.get(name)
            if child is None:
                self._add(monitor)
                done["started"].append(name)
            else:
                what = self._change_child(child, monitor, done["problems"])
                if what is not None:
                    done[what].append(name)
        self._service = new
        return done

    def _change_child(self, child: Child, monitor: Monitor, problems: list[str]) -> str | None:
        """Have it be as ``monitor`` says; what was done for that."""
        now_ns = time.monotonic_ns()
        if child.monitor == monitor and child.state != "stopping":
            child.retry(now_ns)
            return None
        wanted = change(child.monitor, monitor) if child.state == "running" else None
        if wanted is None:
            child.replace(monitor, now_ns)
            return "restarted"
        if wanted == Tune():
            child.monitor = monitor
            return None
        try:
            Client(monitor.name, timeout_s=_TUNE_S).ask(wanted)
        except PydamonError as error:
            problems.append(f"{monitor.name}: {error}")
            messages.say(f"{monitor.name}: goes on as before: {error}")
            return None
        child.monitor = monitor
        return "tuned"

    # -- who asks -----------------------------------------------------------------------------------------------------

    def _answer(self, request: protocol.AnyRequest) -> dict[str, Any] | None:
        if isinstance(request, protocol.Status):
            return self._status()
        if isinstance(request, protocol.Reload):
            return self._reload()
        if isinstance(request, protocol.Stop):
            self._asked_to_stop = True
            return None
        raise RequestError("is a service: change its file, and have it read anew (pydamon service reload)")

    def _status(self) -> dict[str, Any]:
        return {
            "service": self._service.name,
            "pid": os.getpid(),
            "file": printable(self._service.path),
            "uptime_ns": time.monotonic_ns() - self._began_ns,
            "state": "stopping" if self._stopping else "running",
            "monitors": [
                {
                    "name": name,
                    "state": child.state,
                    "pid": child.pid,
                    "restarts": child.restarts,
                    "why": child.why if child.state in ("waiting", "ended") else None,
                    "dry_run": child.monitor.request.dry_run,
                }
                for name, child in self._children.items()
            ],
            "shipping": self._shipping(),
        }

    def _shipping(self) -> dict[str, Any] | None:
        """How that goes, as it was told a minute ago; None: nothing is shipped."""
        shipping = self._service.shipping
        if shipping is None:
            return None
        from pydamon.service.shipping.told import read_status

        told = read_status(shipping.spool)
        return {"to": shipping.where} if told is None else msgspec.to_builtins(told)


def _ship(shipping: Shipping, monitors: Callable[[], list[dict[str, Any]]], life: int) -> None:
    with lean.imports():
        from pydamon.service.shipping.process import ship

    ship(shipping, monitors, life)
