"""pydamon: DAMON, the Linux data access monitor, as practical user-space software.

What is listed here is the library's stable face (docs/library.md has examples of all of it).
"""

from __future__ import annotations

from pydamon.version import __version__

TYPE_CHECKING = False  # typing's own is not needed otherwise, and takes as long as all else that help needs
if TYPE_CHECKING:
    from pydamon.core.callbacks import Callbacks
    from pydamon.core.snapshot import Snapshot
    from pydamon.errors import MachineError, PydamonError, RequestError
    from pydamon.library.build import make_scheme, make_spec
    from pydamon.library.guest_pages import GuestPages
    from pydamon.library.monitor import Monitor
    from pydamon.library.own_pages import OwnPages
    from pydamon.library.tables import to_arrow, to_numpy, to_pandas, to_polars
    from pydamon.library.whatif import what_if
    from pydamon.ops.reported.reports import AccessFilter, AccessReports
    from pydamon.records.joined import open_record
    from pydamon.service.client import Client
    from pydamon.spec.model import Intervals, NrRegions, Spec
    from pydamon.spec.probes import Probe
    from pydamon.spec.schemes import Scheme

# Where each is; looked up when used: the command's start-up must not pay for NumPy.
_PLACES = {
    "AccessFilter": "ops.reported.reports",
    "AccessReports": "ops.reported.reports",
    "Callbacks": "core.callbacks",
    "Client": "service.client",
    "Intervals": "spec.model",
    "MachineError": "errors",
    "Monitor": "library.monitor",
    "NrRegions": "spec.model",
    "GuestPages": "library.guest_pages",
    "OwnPages": "library.own_pages",
    "Probe": "spec.probes",
    "PydamonError": "errors",
    "RequestError": "errors",
    "Scheme": "spec.schemes",
    "Snapshot": "core.snapshot",
    "Spec": "spec.model",
    "make_scheme": "library.build",
    "make_spec": "library.build",
    "open_record": "records.joined",
    "to_arrow": "library.tables",
    "to_numpy": "library.tables",
    "to_pandas": "library.tables",
    "to_polars": "library.tables",
    "what_if": "library.whatif",
}

__all__ = [
    "AccessFilter",
    "AccessReports",
    "Callbacks",
    "Client",
    "GuestPages",
    "Intervals",
    "MachineError",
    "Monitor",
    "NrRegions",
    "OwnPages",
    "Probe",
    "PydamonError",
    "RequestError",
    "Scheme",
    "Snapshot",
    "Spec",
    "__version__",
    "make_scheme",
    "make_spec",
    "open_record",
    "to_arrow",
    "to_numpy",
    "to_pandas",
    "to_polars",
    "what_if",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'pydamon' has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(f"pydamon.{_PLACES[name]}"), name)
    return found
