-- Authors for the posts, announced as tally-command would have: the relay publishes them.
WITH made AS (
    INSERT INTO users (id, name, email, version)
    SELECT :first + n, 'Author ' || n, 'author-' || n || '@example.org', 1
    FROM generate_series(0, :users - 1) AS n
    RETURNING id, name, email, avatar
)
INSERT INTO events (user_id, version, type, data, timeline)
SELECT id, 1, 'user.created', profile_json(name, email, avatar), (current_batch_context()).timeline FROM made;
