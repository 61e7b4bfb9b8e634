"""What is said at the head of every test run."""

from __future__ import annotations

from tests.masters import real_masters


def pytest_report_header() -> str:
    names = ", ".join(path.name for path in real_masters())
    return f"camera files: {names or 'none beside the checkout'}; besides, generated DNGs (no package ships real ones)"
