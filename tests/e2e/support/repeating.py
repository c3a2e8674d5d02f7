"""Doing something again and again beside what a test does."""
import threading

PATIENCE_S = 180


class Repeating:
    """Calls each of `turns` again and again, each in a thread of its own, while its `with` block runs. An exception ends
    that thread and fails the block."""

    def __init__(self, *turns, pause_s=0.0):
        self._pause_s = pause_s
        self._ended = threading.Event()
        self._failures = []
        self._threads = [threading.Thread(target=self._run, args=(turn,), daemon=True) for turn in turns]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, failed, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)
            assert not thread.is_alive(), f"{type(self).__name__}: a thread does not end"
        if failed is None and self._failures:
            raise self._failures[0]

    def _run(self, turn):
        try:
            while not self._ended.wait(self._pause_s):
                turn()
        except BaseException as failure:  # pylint: disable=broad-except
            self._failures.append(failure)
