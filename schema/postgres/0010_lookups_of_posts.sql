-- Posts are looked up one by one by their ids, whatever the planner takes the table for. A plan of
-- the functions below is kept as long as the session; one that was made while there were no posts
-- reads all of posts_of_author instead, which then is as small as can be.

-- OFFSET 0 keeps the conditions on what is found away from the finding. The planner writes it into
-- the statement that calls it.
CREATE FUNCTION post_by_id(wanted bigint) RETURNS SETOF posts
    LANGUAGE sql STABLE AS $$
    SELECT * FROM posts WHERE id = wanted OFFSET 0
$$;

CREATE OR REPLACE FUNCTION lock_touched(commands command[]) RETURNS bigint[]
    LANGUAGE plpgsql AS $$
DECLARE
    posts_touched bigint[];
    posts_doomed bigint[];
    posts_inline bigint[] := '{}';
    comments_doomed bigint[];
BEGIN
    SELECT array_agg(DISTINCT target_id) FILTER (WHERE op IN (3, 5)),
           array_agg(DISTINCT target_id) FILTER (WHERE op = 5),
           array_agg(DISTINCT target_id) FILTER (WHERE op = 4)
    INTO posts_touched, posts_doomed, comments_doomed FROM unnest(commands);

    IF posts_doomed IS NOT NULL THEN
        PERFORM FROM posts WHERE id = ANY (posts_touched) ORDER BY id FOR UPDATE;
        SELECT coalesce(array_agg(id), '{}') INTO posts_inline FROM (
            SELECT id, counted.comments, sum(counted.comments) OVER (ORDER BY id) AS running
            FROM unnest(posts_doomed) AS doomed, LATERAL post_by_id(doomed) AS post,
                LATERAL (SELECT count(*) AS comments FROM (
                    SELECT FROM comments WHERE post_id = post.id
                    LIMIT inline_comments_most() + 1) AS first_ones) AS counted
            WHERE post.deleted_at IS NULL) AS sized
        WHERE comments <= inline_comments_most() AND running <= inline_comments_of_batch_most();
        comments_doomed := comments_doomed
            || ARRAY(SELECT id FROM comments WHERE post_id = ANY (posts_inline));
    ELSIF posts_touched IS NOT NULL THEN
        PERFORM FROM posts WHERE id = ANY (posts_touched) ORDER BY id FOR KEY SHARE;
    END IF;
    IF comments_doomed IS NOT NULL THEN
        PERFORM FROM comments WHERE id = ANY (comments_doomed) ORDER BY id FOR UPDATE;
    END IF;
    PERFORM FROM users WHERE id = ANY (ARRAY(
            SELECT user_id FROM unnest(commands) WHERE user_id IS NOT NULL
            UNION SELECT author_id FROM posts WHERE id = ANY (posts_doomed)
            UNION SELECT author_id FROM comments WHERE id = ANY (comments_doomed)))
        ORDER BY id FOR NO KEY UPDATE;
    RETURN posts_inline;
END
$$;

CREATE OR REPLACE FUNCTION create_comments(commands command[], context batch_context)
    RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    outcomes command_outcome[];
BEGIN
    WITH found AS (
        SELECT c.ord, c.body, c.traceparent, p.id AS post_id, u.id AS author_id,
               u.version AS version_before, p.id IS NOT NULL AND u.id IS NOT NULL AS accepted
        FROM unnest(commands) AS c
        LEFT JOIN LATERAL post_by_id(c.target_id) AS p ON p.deleted_at IS NULL AND EXISTS (
            SELECT FROM users a WHERE a.id = p.author_id AND a.deleted_at IS NULL)
        LEFT JOIN users u ON u.id = c.user_id AND u.deleted_at IS NULL
    ), decided AS MATERIALIZED (
        SELECT f.*, CASE WHEN accepted THEN next_id(context.shard) END AS id,
               version_before + row_number() OVER (PARTITION BY author_id, accepted ORDER BY ord)
                   AS version
        FROM found AS f
    ), bumped AS (
        UPDATE users u SET version = b.version
        FROM (SELECT author_id, max(version) AS version FROM decided WHERE id IS NOT NULL
              GROUP BY author_id) AS b
        WHERE u.id = b.author_id
    ), made AS (
        INSERT INTO comments (id, post_id, author_id, body)
        SELECT id, post_id, author_id, body FROM decided WHERE id IS NOT NULL
    ), said AS (
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        SELECT author_id, version, 'comment.created',
               '{"commentId":"' || id || '","postId":"' || post_id || '"}', context.timeline,
               traceparent
        FROM decided WHERE id IS NOT NULL ORDER BY ord
    )
    SELECT array_agg(CASE WHEN post_id IS NULL THEN refused(ord, 4)
                          WHEN author_id IS NULL THEN refused(ord, 3)
                          ELSE accepted(ord, id, author_id, version) END)
    INTO outcomes FROM decided;
    RETURN outcomes;
END
$$;

CREATE OR REPLACE FUNCTION delete_posts(commands command[], posts_inline bigint[], context batch_context)
    RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    accepted command[];
    outcomes command_outcome[];
BEGIN
    SELECT coalesce(array_agg(c::command), '{}') INTO accepted FROM (
        SELECT DISTINCT ON (c.target_id) c.*
        FROM unnest(commands) AS c
        JOIN LATERAL post_by_id(c.target_id) AS p ON p.deleted_at IS NULL
        JOIN users u ON u.id = p.author_id AND u.deleted_at IS NULL
        ORDER BY c.target_id, c.ord) AS c;

    PERFORM remove_comments(array_agg(doomed.id ORDER BY doomed.id),
                            array_agg(doomed.traceparent ORDER BY doomed.id), context.timeline)
    FROM (SELECT m.id, a.traceparent FROM unnest(accepted) AS a
          JOIN comments m ON m.post_id = a.target_id
          WHERE a.target_id = ANY (posts_inline)) AS doomed;

    WITH numbered AS MATERIALIZED (
        SELECT a.ord, a.target_id AS id, a.traceparent, p.author_id,
               u.version + row_number() OVER (PARTITION BY u.id ORDER BY a.ord) AS version
        FROM unnest(accepted) AS a
        JOIN posts p ON p.id = a.target_id
        JOIN users u ON u.id = p.author_id
    ), bumped AS (
        UPDATE users u SET version = b.version
        FROM (SELECT author_id, max(version) AS version FROM numbered GROUP BY author_id) AS b
        WHERE u.id = b.author_id
    ), removed AS (
        DELETE FROM posts p USING numbered n WHERE p.id = n.id AND p.id = ANY (posts_inline)
    ), marked AS (
        UPDATE posts p SET deleted_at = now() FROM numbered n
        WHERE p.id = n.id AND p.id <> ALL (posts_inline)
    ), said AS (
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        SELECT author_id, version, 'post.deleted', '{"postId":"' || id || '"}', context.timeline,
               traceparent
        FROM numbered ORDER BY ord
    )
    SELECT coalesce(array_agg(accepted(ord, id, author_id, version)), '{}')
    INTO outcomes FROM numbered;
    RETURN outcomes || ARRAY(
        SELECT refused(ord, 4) FROM unnest(commands)
        WHERE ord <> ALL (ARRAY(SELECT ord FROM unnest(accepted))));
END
$$;
