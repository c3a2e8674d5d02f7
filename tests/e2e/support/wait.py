"""Waiting for conditions: bounded, and with the last thing seen in the message when the time is over."""
import http.client
import subprocess
import time

# Long enough for a loaded machine of two cores; a condition that holds is noticed at once.
PATIENCE_S = 120

NOT_YET = (OSError, AssertionError, LookupError, ValueError, subprocess.SubprocessError, http.client.HTTPException)


def until(what, condition, seconds=PATIENCE_S, pause_s=0.02):
    """Calls `condition` until it returns something true, which is returned. An exception counts as "not yet"."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = condition()
            if seen:
                return seen
        except NOT_YET as error:
            seen = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s; last seen: {seen!r}")
        time.sleep(pause_s)
