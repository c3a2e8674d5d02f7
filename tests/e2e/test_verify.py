"""tallyctl verify: what a sample says of everyone, and how little memory it takes for any number of users."""
import pytest

from support.many import PEAK_MOST_KIB, fill, verify

FINE, DIFFERENT, USAGE = 0, 1, 2


def test_the_memory_of_a_run_does_not_grow_with_the_users_or_their_differences(servers):
    fill(servers, 300_000)
    code, result, peak_kib = verify(servers)
    assert code == FINE and result["usersChecked"] == result["keysScanned"] == 300_000, result
    assert peak_kib < PEAK_MOST_KIB, peak_kib
    print(f"300,000 equal users: peak {peak_kib} KiB")
    # Everybody differs: one half at once, and the other after it has been waited for.
    servers.sql("""UPDATE users SET name = 'Somebody else' WHERE id % 2 = 0;
                   UPDATE users SET version = 2 WHERE id % 2 = 1""", timeout=600)
    code, result, peak_kib = verify(servers, "--grace", "1")
    assert code == DIFFERENT and result["usersDiffering"] == 300_000 and len(result["listed"]) == 20, result
    assert peak_kib < PEAK_MOST_KIB, peak_kib
    print(f"300,000 differing users: peak {peak_kib} KiB")


def test_a_sample_is_random_and_says_how_many_may_differ(servers):
    fill(servers, 20_000)
    code, result, _ = verify(servers, "--sample", "2000")
    sample = result["sample"]
    # Six standard deviations of its size.
    assert code == FINE and abs(sample["users"] - 2000) < 260 and sample["of"] == 20_000, result
    assert sample["differingShareAtMost"] == pytest.approx(3 / sample["users"]) and sample["confidence"] == 0.95
    assert not result["totals"]["compared"] and result["keysScanned"] == 0
    code, result, _ = verify(servers, "--sample", "5%")
    assert code == FINE and abs(result["sample"]["users"] - 1000) < 200, result
    said = servers.ctl("verify", "--sample", "5%", check=FINE).stdout
    assert "with 95 % confidence at most 0." in said and "of 20,000 users" in said, said
    assert "no difference in the sample" in said and "the read model equals" not in said
    # Everyone: nothing is left to chance.
    assert verify(servers, "--sample", "100%")[1]["sample"]["differingShareAtMost"] == 0
    # Half of each end of the table differs, and so says each sample, of other users each time.
    servers.sql("UPDATE users SET name = 'Somebody else' WHERE id % 2 = 0")
    found = []
    for _ in range(3):
        code, result, _ = verify(servers, "--sample", "1000", "--limit-differences", "1000")
        assert code == DIFFERENT and result["sample"]["differingShareAtMost"] is None
        found.append({int(row["user"]) for row in result["listed"]})
    for users in found:
        assert 350 < len(users) < 650
        assert 0.3 < sum(user <= 10_000 for user in users) / len(users) < 0.7
    assert found[0] != found[1] != found[2]
    assert servers.ctl("verify", "--sample", "0%").returncode == USAGE
    assert servers.ctl("verify", "--sample", "half").returncode == USAGE
