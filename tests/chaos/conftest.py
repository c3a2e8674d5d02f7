"""The faults F1 to F20. Each test prints its figures beside their limits, and all stand in a table at the end.

TALLY_CHAOS=short runs each in seconds (support/scale.py). PostgreSQL and Kafka are of this run alone, and a test may
kill them; each stack has a database, topics and a Redis of its own, as in the end-to-end tests.
"""
import pytest

from support.figures import Figures, table
from support.redis import Redis
from support.servers import Server
from support.stack import Stack

pytest_plugins = ["support.fixtures"]
FIGURES = pytest.StashKey()

# A line for every request would be most of the work.
Stack.log_level = "info"
# As Tally asks for it: what Redis loses with its last second is a fault of this suite.
Redis.appendfsync = "everysec"


def pytest_configure(config):
    config.stash[FIGURES] = None


@pytest.fixture(scope="session")
def figures(pytestconfig):
    made = Figures(pytestconfig.pluginmanager)
    pytestconfig.stash[FIGURES] = made
    return made


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    made = config.stash[FIGURES]
    if made is not None and made.all:
        terminalreporter.section("figures")
        for line in table(made.all):
            terminalreporter.write_line(line)


@pytest.fixture
def postgres():
    """The server; it runs again when the test ends."""
    server = Server("postgres")
    yield server
    server.start()


@pytest.fixture
def kafka_server():
    """The server; it runs again when the test ends."""
    server = Server("kafka")
    yield server
    server.resume()
    server.start()
