"""Building the read model anew, and going back to the one before, beside readers and writers."""
import json
import subprocess

from support.load import Load
from support.oracle import assert_diff_0
from support.readers import Readers, users_of
from support.scale import scaled
from support.wait import until

FINE = 0


def start_rebuild(stack, rate_s):
    """In the background, so slowly that it can be killed midway."""
    environment = stack.environment(stack.settings_of("ctl"))
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", stack.program("tallyctl"), "rebuild", "--json", "--rate",
                             str(rate_s)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def filled(stack):
    """Users that the unfinished generation has."""
    rows = json.loads(stack.ctl("generations", "--json").stdout)["generations"]
    building = [row["generation"] for row in rows if row["role"] == "building"]
    return len(stack.redis.call("KEYS", f"tally:{building[0]}:*:user:*").split()) if building else 0


def test_f12_a_rebuild_killed_midway_goes_on_and_no_read_fails_and_no_count_goes_down(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        users = load.users
        with Readers(stack, users_of(load)) as readers:
            process = start_rebuild(stack, users // 10)
            until("the new generation is filled in part", lambda: filled(stack) > users // 20)
            process.kill()
            process.wait(timeout=30)
            assert filled(stack) < users, "it was not killed midway"
            load.until_more(scaled(500, 50))
            result = json.loads(stack.ctl("rebuild", "--json", check=FINE, timeout=600).stdout)
            load.until_more(scaled(500, 50))
        with Readers(stack, users_of(load)) as after:
            back = json.loads(stack.ctl("generations", "rollback", "--json", check=FINE).stdout)
            load.until_more(scaled(500, 50))
            forward = json.loads(stack.ctl("generations", "rollback", "--json", check=FINE).stdout)
            load.until_more(scaled(500, 50))
    figures.load("F12 load", load.per_second)
    assert result["resumed"] and result["switched"], result
    assert back["generation"] == result["previous"] and forward["generation"] == result["generation"]
    figures.time("F12 switch", result["switchMs"] / 1000, 1)
    figures.time("F12 rollback", back["switchMs"] / 1000, 1)
    figures.time("F12 and forward again", forward["switchMs"] / 1000, 1)
    figures.told("F12 reads", readers.read)
    figures.told("F12 refusals", dict(readers.answers))
    figures.exactly("F12 reads that went down or said that a user is unknown", len(readers.wrong))
    figures.exactly("F12 failed reads", readers.refused)
    # The kept generation is behind: until it is up to date reads say so rather than show an older count.
    figures.told("F12 rollback: reads", dict(after.answers))
    figures.exactly("F12 rollback: reads that went down or said that a user is unknown", len(after.wrong))
    assert_diff_0(figures, "F12", stack, [load])
