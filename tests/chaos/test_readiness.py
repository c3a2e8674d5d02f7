"""Readiness means progress: a projector that is connected to all it needs, and applies nothing, says so."""
import pytest

from support.wait import until


@pytest.fixture
def own_stack(make_stack, request):
    """Its projector waits no longer than it does in production."""
    with make_stack(request.node.name, impatient=("projector",)) as made:
        yield made


def restart(stack, **settings):
    stack.projector.terminate()
    stack.projector.environment.update(settings)
    stack.projector.start()


def red(stack, *phrases):
    """What an unready projector says, once all of this is in it: of several reasons the first is told first."""
    answer = stack.projector.look("/readyz?verbose")
    said = answer.body.decode()
    return said if answer.status == 503 and all(phrase in said for phrase in phrases) else None


def test_lag_without_progress_is_red_with_the_reason_and_green_again_by_itself(own_stack):
    stack = own_stack
    restart(stack, TALLY_PROJECTOR_STALL_MS="1000")
    user = stack.new_user()
    stack.user_at(user, 1)
    generation = stack.redis.call("GET", "tally:generation")
    # As if somebody were switching generations and never came to the end of it.
    stack.redis.call("SET", "{tally:generation}:seal", generation)
    for partition in range(stack.partitions):
        stack.redis.call("HINCRBY", f"tally:{generation}:{{{partition}}}:position", "epoch", "1")
    stack.new_post(user)
    until("the projector is unready and says why", lambda: red(stack, "has made no progress", "is being replaced"))
    stack.redis.call("DEL", "{tally:generation}:seal")
    stack.projector.until_ready()
    stack.until_equal()


def test_a_redis_that_refuses_every_write_is_red_with_the_reason(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.redis.call("CONFIG", "SET", "maxmemory", "1")
    stack.new_post(user)
    said = until("the projector is unready and says why", lambda: red(stack, "OOM"))
    assert stack.query.ready(), "reads go on: " + said
    # A full Redis refuses the claim of a position as well, which is tried again and again.
    tried = stack.projector.metrics()["tally_projector_resyncs_total"] + 8
    until("it has tried for seconds", lambda: stack.projector.metrics()["tally_projector_resyncs_total"] >= tried)
    assert stack.projector.runs() and "OOM" in red(stack)
    stack.redis.call("CONFIG", "SET", "maxmemory", "0")
    stack.projector.until_ready()
    stack.until_equal()
