"""Deleting: what goes with what, whose counts it lowers, and that personal data is gone."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.api import assert_problem, assert_success


def comment_often(stack, post, authors, each):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda author: stack.new_comment(post, author), authors * each))


# 600 is more than goes in the command's own transaction; the rest is done in the background.
@pytest.mark.parametrize("each", [8, 150])
def test_a_deleted_post_takes_its_comments_from_the_counts_of_all_their_authors(stack, each):
    owner = stack.new_user()
    authors = [stack.new_user() for _ in range(3)] + [owner]
    doomed, kept = stack.new_post(owner), stack.new_post(owner)
    comment_often(stack, doomed, authors, each)
    comment_often(stack, kept, authors, 2)
    before = stack.until_equal()
    assert [before[user][1:] for user in authors] == [(0, each + 2)] * 3 + [(2, each + 2)]

    assert_success(stack.write.delete(f"/v1/posts/{doomed}"), 200)
    assert_problem(stack.write.delete(f"/v1/posts/{doomed}"), 404, "post-not-found")
    assert_problem(stack.write.post(f"/v1/posts/{doomed}/comments", {"authorId": owner, "body": "Late"}), 404,
                   "post-not-found")
    after = stack.until_equal()
    assert [after[user][1:] for user in authors] == [(0, 2)] * 3 + [(1, 2)]
    # One event, and so one version, for each comment that went, and one for the post.
    assert [after[user][0] - before[user][0] for user in authors] == [each] * 3 + [each + 1]


def test_a_deleted_comment_is_counted_no_more_and_gone(stack):
    user = stack.new_user()
    comment = stack.new_comment(stack.new_post(user), user)
    assert_success(stack.write.delete(f"/v1/comments/{comment}"), 200)
    assert_problem(stack.write.delete(f"/v1/comments/{comment}"), 404, "comment-not-found")
    assert stack.user_at(user, 4).json["commentCount"] == 0


def test_a_deleted_user_is_gone_for_everyone(stack):
    user, other = stack.new_user(), stack.new_user()
    post, others_post = stack.new_post(user), stack.new_post(other)
    stack.new_comment(post, other)
    mine = stack.new_comment(others_post, user)
    stack.user_at(user, 3)

    gone = assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    assert gone["version"] == 4
    assert_problem(stack.write.delete(f"/v1/users/{user}"), 404, "user-not-found")
    assert_problem(stack.write.patch(f"/v1/users/{user}", {"name": "Back"}), 404, "user-not-found")
    assert_problem(stack.write.post("/v1/posts", {"authorId": user, "body": "Late"}), 404, "user-not-found")
    assert_problem(stack.write.post(f"/v1/posts/{post}/comments", {"authorId": other, "body": "Late"}), 404,
                   "post-not-found")

    source = stack.until_equal()
    assert user not in source
    assert_problem(stack.read.get(f"/v1/users/{user}"), 404, "user-not-found")
    assert stack.read.get("/v1/users", query={"ids": f"{user},{other}"}).json["missing"] == [user]
    # The comment on the deleted user's post went with it.
    assert source[other][1:] == (1, 0)
    assert_problem(stack.write.delete(f"/v1/comments/{mine}"), 404, "comment-not-found")


def test_personal_data_of_a_deleted_user_is_in_no_row_of_users_and_nowhere_in_redis(stack):
    marker = f"secret{stack.id}"
    profile = {"name": f"Name {marker}", "email": f"{marker}@example.org", "avatar": f"https://example.org/{marker}"}
    user = assert_success(stack.write.post("/v1/users", profile), 201)["id"]
    stack.user_at(user, 1)
    find = """
    local found = {}
    for _, key in ipairs(redis.call('KEYS', '*')) do
        if redis.call('TYPE', key).ok == 'hash' then
            for _, value in ipairs(redis.call('HVALS', key)) do
                if string.find(value, ARGV[1], 1, true) then found[#found + 1] = key end
            end
        end
    end
    return found"""
    assert stack.redis.call("EVAL", find, "0", marker).split("\n") == [stack.user_key(user)] * 3
    assert stack.sql(f"SELECT id FROM users WHERE users::text LIKE '%{marker}%'") == [[user]]

    assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    stack.until_equal()
    assert stack.redis.call("EVAL", find, "0", marker) == ""
    assert stack.sql(f"SELECT id FROM users WHERE users::text LIKE '%{marker}%'") == []
    # The version and the mark stay, so that a late duplicate cannot bring the user back.
    remains = stack.redis.hash(stack.user_key(user))
    assert remains["v"] == "2" and "deleted" in remains and not {"name", "email", "avatar"} & set(remains)
    # And the address is free again.
    assert_success(stack.write.post("/v1/users", profile), 201)
