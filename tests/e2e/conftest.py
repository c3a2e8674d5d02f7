"""Fixtures of the end-to-end tests. A failed test prints the ends of its services' logs."""
import os
import re

import pytest

from support.stack import Stack


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory):
    """tests/run keeps its log folder when a test fails."""
    state = os.environ.get("TALLY_LOCAL_DIR")
    if state and os.path.isdir(os.path.join(state, "log")):
        return os.path.join(state, "log", "e2e")
    return str(tmp_path_factory.mktemp("e2e"))


def running(folder):
    stack = Stack(folder)
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def stack(log_folder):
    """The stack that all tests share which neither stop nor break a part of it."""
    yield from running(os.path.join(log_folder, "shared"))


@pytest.fixture
def own_stack(log_folder, request):
    """A stack for one test, which may do to it what it likes."""
    yield from running(os.path.join(log_folder, re.sub(r"[^a-zA-Z0-9_]+", "-", request.node.name)[:100]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and call.when in ("setup", "call"):
        for stack in Stack.living:
            for name, tail in stack.logs():
                report.sections.append((f"{os.path.basename(stack.folder)}/{name}", tail))
