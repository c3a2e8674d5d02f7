"""More than one of each: command services on one database, projectors in one group."""
from concurrent.futures import ThreadPoolExecutor

from support.stack import PARTITIONS
from support.wait import until
from support.writers import Writers


def leaders(stack):
    return [service for service in stack.services
            if service.kind == "command" and service.runs() and service.metrics()["tally_relay_leading"] == 1]


def owned(service):
    return int(service.metrics()["tally_projector_owned_partitions"])


def test_two_command_services_write_to_one_database_and_one_relay_leads(own_stack):
    stack = own_stack
    second = stack.add("command").start()
    users = [stack.new_user(service.client) for service in (stack.command, second) * 10]
    with Writers([stack.command.api, second.api], users, threads=8, most=800) as writers:
        until("one relay leads", lambda: len(leaders(stack)) == 1)
    until("one relay leads", lambda: len(leaders(stack)) == 1)
    writers.assert_counted(stack.until_equal())


def test_command_services_that_delete_what_the_other_writes_to_never_deadlock(own_stack):
    stack = own_stack
    second = stack.add("command").start()

    def load(service, seed):
        # Few users and posts, so that the same rows are wanted from all sides.
        return stack.ctl("load", "--users", "10", "--commands", "1500", "--connections", "16", "--seed", str(seed),
                         "--mix", "post=20,comment=50,delete-post=15,delete-comment=15", check=0,
                         TALLY_COMMAND_LISTEN=service.api)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(load, service, seed) for service, seed in
                ((stack.command, 1), (second, 1), (second, 2))]
        for run in runs:
            run.result()
    stack.until_equal()
    assert stack.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [["0"]]


def test_the_standby_relay_takes_over_when_the_leader_is_killed_and_nothing_is_lost_or_doubled(own_stack):
    stack = own_stack
    stack.add("command").start()
    users = [stack.new_user() for _ in range(20)]
    commands = [service for service in stack.services if service.kind == "command"]
    with Writers([service.api for service in commands], users) as writers:
        for _ in range(2):
            def leading():
                found = leaders(stack)
                return len(found) == 1 and found
            leader, = until("one relay leads", leading)
            standby = next(service for service in commands if service is not leader)
            seen = writers.acknowledged
            until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
            leader.kill()
            until("the standby leads", lambda: leaders(stack) == [standby])
            user = stack.new_user(standby.client)
            users.append(user)
            stack.user_at(user, 1)
            leader.start()
    writers.assert_counted(stack.until_equal())


def test_projectors_share_the_partitions_and_take_over_from_one_that_stops(own_stack):
    stack = own_stack
    users = [stack.new_user() for _ in range(40)]
    with Writers([stack.command.api], users) as writers:
        second = stack.add("projector").start()
        until("both own partitions", lambda: owned(stack.projector) > 0 and owned(second) > 0
              and owned(stack.projector) + owned(second) == PARTITIONS)
        seen = stack.applied()
        until("200 more events are applied", lambda: stack.applied() >= seen + 200)
        assert stack.projector.terminate() == 0
        until("the second owns all partitions", lambda: owned(second) == PARTITIONS)
        stack.projector.start()
        until("both own partitions again", lambda: owned(stack.projector) > 0 and owned(second) > 0)
        second.kill()
        until("the first owns all partitions", lambda: owned(stack.projector) == PARTITIONS)
    writers.assert_counted(stack.until_equal())


def test_a_projector_that_slept_through_its_replacement_overwrites_nothing(own_stack):
    stack = own_stack
    users = [stack.new_user() for _ in range(40)]
    with Writers([stack.command.api], users) as writers:
        second = stack.add("projector").start()
        until("both own partitions", lambda: owned(stack.projector) > 0 and owned(second) > 0)
        stack.projector.pause()
        until("the second owns all partitions", lambda: owned(second) == PARTITIONS)
        seen = stack.applied()
        until("200 more events are applied", lambda: stack.applied() >= seen + 200)
        stack.projector.resume()
        until("both own partitions again", lambda: owned(stack.projector) > 0 and owned(second) > 0)
        seen = stack.applied()
        until("200 more events are applied", lambda: stack.applied() >= seen + 200)
    writers.assert_counted(stack.until_equal())
