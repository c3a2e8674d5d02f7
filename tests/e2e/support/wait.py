"""Waiting for conditions: bounded, and with the last thing seen in the message when the time is over."""
import http.client
import subprocess
import time

# Long enough for a loaded machine of two cores; a condition that holds is noticed at once.
PATIENCE_S = 120

NOT_YET = (OSError, AssertionError, LookupError, ValueError, subprocess.SubprocessError, http.client.HTTPException)


def away_from_midnight(seconds):
    """For a test of so many seconds at most about what is counted by the day (UTC): waits for a new day that would begin
    in its middle."""
    left_s = 86400 - time.time() % 86400
    if left_s < seconds:
        time.sleep(left_s)


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
