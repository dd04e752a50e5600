"""What `vtg doctor` reports: what is installed, what vtg uses of it, and what to do about each thing that is wrong.

`examine` makes the report (`report`). `packages` reads the versions of the packages and imports them in a process of
their own, so that one that ends its process is reported too; `machine` examines engine, device and video tools;
`data` the models on the disk and the library. Nothing is downloaded and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.doctor.examination import examine
    from vtg.doctor.report import Check, Report

__all__ = ["Check", "Report", "examine"]

__getattr__, __dir__ = lazy_names(__name__, {"Check": "report", "Report": "report", "examine": "examination"})
