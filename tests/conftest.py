"""What every test run begins with."""

from __future__ import annotations

import signal

from tests.masters import real_masters


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    names = ", ".join(path.name for path in real_masters())
    return f"camera files: {names or 'none beside the checkout'}; besides, generated DNGs (no package ships real ones)"
