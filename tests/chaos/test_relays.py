"""More than one relay, and a relay that finds its database replaced by another one."""
from support.failover import Address
from support.load import Load
from support.oracle import assert_diff_0, assert_published
from support.scale import scaled
from support.wait import until

# Of what is published before the command service is killed; all of that comes again.
REPEATS = 300


def leads(service):
    return service.metrics().get("tally_relay_leading") == 1


def port_of(service):
    return int(service.api.rsplit(":", 1)[1])


def test_two_relays_on_one_database_take_turns_however_often_the_leader_is_stopped_or_killed(own_stack, figures):
    stack, turns = own_stack, scaled(20, 3)
    stack.add("command").start()
    both = [stack.service("command", 1), stack.service("command", 2)]
    elections = 0
    address = Address(port_of(both[0]))
    with Load(stack, address=f"127.0.0.1:{address.port}") as load:
        for turn in range(turns):
            leader = until("one of the two leads", lambda: next(filter(leads, both), None))
            other = both[1 - both.index(leader)]
            address.lead_to(port_of(other))
            if turn % 2:
                leader.kill()
            else:
                leader.pause()
            address.cut()
            until("the other one leads", lambda other=other: leads(other))
            elections += 1
            load.until_more(scaled(500, 50))
            if turn % 2:
                leader.start()
            else:
                leader.resume()
            until("it does not lead, or not both do", lambda: sum(map(leads, both)) == 1)
    address.close()
    figures.exactly("two relays: changes of the leader", elections, turns)
    assert_published(figures, "two relays", stack)
    assert_diff_0(figures, "two relays", stack, [load])


def test_a_relay_whose_position_is_of_another_database_starts_over_and_nothing_is_counted_twice(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        load.until_more(scaled(2000, 300))
        until("events are published", lambda: stack.command.metrics()["tally_relay_published_total"] >= REPEATS)
        stack.command.kill()
        # A dump that was restored elsewhere: its position is of a database with another system identifier.
        stack.sql("UPDATE relay_position SET system_identifier = 1")
        stack.command.start()
        load.until_more(scaled(2000, 300))
    changed = [line for line in stack.command.log_lines() if line["event"] == "relay.database_changed"]
    figures.exactly("restored database: noticed", len(changed), 1)
    log = assert_published(figures, "restored database", stack)
    figures.at_least("restored database: events published again", log.duplicates, REPEATS)
    assert_diff_0(figures, "restored database", stack, [load])
