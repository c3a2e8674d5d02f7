"""Fixtures of the end-to-end and the chaos tests. A failed test prints the ends of its services' logs."""
import os
import re
from contextlib import contextmanager

import pytest

from support.stack import Stack


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory):
    """tests/run keeps its log folder when a test fails."""
    state = os.environ.get("TALLY_LOCAL_DIR")
    if state and os.path.isdir(os.path.join(state, "log")):
        return os.path.join(state, "log", "e2e")
    return str(tmp_path_factory.mktemp("e2e"))


@pytest.fixture(scope="session")
def make_stack(log_folder):
    """A function that gives a running stack as a context; its logs go into a folder of that name."""
    @contextmanager
    def make(name, **more):
        stack = Stack(os.path.join(log_folder, re.sub(r"[^a-zA-Z0-9_]+", "-", name)[:100]), **more)
        try:
            yield stack.start()
        finally:
            stack.stop()
    return make


@pytest.fixture(scope="session")
def stack(make_stack):
    """The stack that all tests share which neither stop nor break a part of it."""
    with make_stack("shared") as made:
        yield made


@pytest.fixture
def own_stack(make_stack, request):
    """A stack for one test, which may do to it what it likes."""
    with make_stack(request.node.name) as made:
        yield made


@pytest.fixture
def servers(log_folder, request):
    """A stack's servers without its services."""
    made = Stack(os.path.join(log_folder, request.node.name))
    try:
        made.prepare()
        yield made
    finally:
        made.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and call.when in ("setup", "call"):
        for stack in Stack.living:
            for name, tail in stack.logs():
                report.sections.append((f"{os.path.basename(stack.folder)}/{name}", tail))
