"""The figures of a run, each beside its limit: printed at once, and as a table at the end.

Counts are promises and fail the test. Times depend on the machine: over the limit is said, and fails only in a full
run that is grossly over it.
"""
from collections import namedtuple

from support.scale import SHORT

GROSSLY = 10
LOAD_LEAST_S = 2000
Figure = namedtuple("Figure", "name value limit verdict")


class Figures:
    def __init__(self, plugins):
        self._reporter = plugins.get_plugin("terminalreporter")
        self._capture = plugins.get_plugin("capturemanager")
        self.all = []

    def exactly(self, name, value, limit=0):
        """A count that must be this."""
        self._add(name, f"{value:,}", f"{limit:,}", value == limit)
        assert value == limit, f"{name}: {value}, not {limit}"

    def at_least(self, name, value, limit):
        """A count that must be reached, such as one refused write for each zombie."""
        self._add(name, f"{value:,}", f"at least {limit:,}", value >= limit)
        assert value >= limit, f"{name}: {value}, not {limit} or more"

    def at_most(self, name, value, limit):
        """A bound, such as one of memory."""
        self._add(name, f"{value:,}", f"at most {limit:,}", value <= limit)
        assert value <= limit, f"{name}: {value}, the limit is {limit}"

    def time(self, name, seconds, limit):
        self._add(name, f"{seconds:.2f} s", f"at most {limit:g} s", seconds <= limit)
        assert SHORT or seconds <= limit * GROSSLY, f"{name}: {seconds} s, the limit is {limit} s"

    def load(self, name, per_second):
        """Said only: it tells how hard the test was, not whether Tally is right."""
        limit = None if SHORT else f"at least {LOAD_LEAST_S:,}/s"
        self._add(name, f"{per_second:,.0f}/s", limit, per_second >= LOAD_LEAST_S)

    def told(self, name, value):
        """Without a limit."""
        self._add(name, f"{value:,}" if isinstance(value, int) else str(value), None, True)

    def _add(self, name, value, limit, kept):
        figure = Figure(name, value, limit, "" if limit is None else "ok" if kept else "NOT KEPT")
        self.all.append(figure)
        with self._capture.global_and_fixture_disabled():
            self._reporter.ensure_newline()
            self._reporter.write_line(line_of(figure))


def line_of(figure):
    limit = f" (limit {figure.limit}) {figure.verdict}" if figure.limit is not None else ""
    return f"{figure.name}: {figure.value}{limit}"


def table(figures):
    name = max(len(figure.name) for figure in figures)
    value = max(len(figure.value) for figure in figures)
    return [f"{figure.name:<{name}}  {figure.value:>{value}}  {figure.limit or '':<18} {figure.verdict}".rstrip()
            for figure in figures]


def percentile(values, share):
    """The nearest rank (https://en.wikipedia.org/wiki/Percentile#The_nearest-rank_method)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]
