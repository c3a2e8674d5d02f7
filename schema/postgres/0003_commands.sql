-- Commands: a batch of writes as one call, which is one transaction of set-based statements.
--
-- Locks are taken in one order by every writer, so that no two can wait for each other:
--   0. idempotency keys (tried, never waited for)   1. posts by id     2. comments by id
--   3. users by id                                  4. e-mail addresses by hash
-- A user's version moves only under that user's row lock.
--
-- A refusal is a value. Outcomes are numbers of TALLY_STATUS_LIST in lib/core/status.h: 0 ok, 3 no
-- such user, 4 no such post, 5 no such comment, 6 e-mail taken, 7 version mismatch, 8 key in use,
-- 9 key reused. Operations are numbers of TALLY_COMMAND_LIST in lib/store/command.h, and run in
-- this order: 0 create user, 1 update user, 2 create post, 3 create comment, 4 delete comment,
-- 5 delete post, 6 delete user.

CREATE TYPE command AS (
    ord integer,
    op smallint,
    user_id bigint,   -- the author, or the user to change
    target_id bigint, -- the post or comment
    if_match bigint,  -- version the user must have, or NULL
    name text,
    email text,
    avatar text,      -- of an update: NULL keeps it, '' removes it
    title text,
    body text,
    traceparent text
);

CREATE TYPE command_outcome AS (
    ord integer,
    outcome smallint,
    replayed boolean,
    id bigint,
    user_id bigint,
    version bigint
);

CREATE FUNCTION accepted(ord integer, id bigint, user_id bigint, version bigint)
    RETURNS command_outcome LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(ord, 0, false, id, user_id, version)::command_outcome
$$;

CREATE FUNCTION refused(ord integer, outcome integer) RETURNS command_outcome
    LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(ord, outcome, false, NULL, NULL, NULL)::command_outcome
$$;

-- What all steps of one batch share.
CREATE TYPE batch_context AS (
    shard smallint,
    timeline integer
);

-- The timeline that is being written, right at once after a promotion; pg_control_checkpoint()
-- would tell the old one until the next checkpoint.
CREATE FUNCTION current_batch_context() RETURNS batch_context
    LANGUAGE sql STABLE AS $$
    SELECT ROW(shard, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
              )::batch_context
    FROM instance
$$;

-- Step 0. Outcomes of the keyed commands that are not to run: the key is held by another
-- transaction or by an earlier command of this batch, or it has a stored outcome. Two statements:
-- the second one's snapshot is younger than the locks, so that it sees what their last holder wrote.
CREATE FUNCTION claim_idempotency_keys(callers text[], keys text[], hashes bytea[])
    RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    busy integer[];
    answered command_outcome[];
BEGIN
    WITH keyed AS MATERIALIZED (
        SELECT k.ord::integer, k.caller, k.key,
               row_number() OVER (PARTITION BY k.caller, k.key ORDER BY k.ord) AS rank
        FROM unnest(callers, keys) WITH ORDINALITY AS k(caller, key, ord)
        WHERE k.key IS NOT NULL
    ), tried AS MATERIALIZED (
        SELECT ord, CASE WHEN rank > 1 THEN false ELSE pg_try_advisory_xact_lock(
            hashtextextended(caller || E'\n' || key, 0)) END AS held
        FROM keyed
    )
    SELECT coalesce(array_agg(ord) FILTER (WHERE NOT held), '{}') INTO busy FROM tried;

    SELECT array_agg(ROW(k.ord, CASE WHEN s.request_hash = k.hash THEN s.outcome ELSE 9 END,
                         s.request_hash = k.hash, s.id, s.user_id, s.version)::command_outcome)
    INTO answered
    FROM unnest(callers, keys, hashes) WITH ORDINALITY AS k(caller, key, hash, ord)
    JOIN idempotency_keys s ON s.caller = k.caller AND s.key = k.key
    WHERE k.key IS NOT NULL AND k.ord <> ALL (busy);

    RETURN coalesce(answered, '{}')
        || ARRAY(SELECT refused(ord, 8)
                 FROM unnest(busy) AS ord);
END
$$;

-- Comments that go with a post inside the command's own transaction, for one post and for a batch;
-- a post with more is marked, and the sweeper takes them.
CREATE FUNCTION inline_comments_most() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 500';
CREATE FUNCTION inline_comments_of_batch_most() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 5000';

-- Steps 1 to 3. Returns the posts whose comments are locked to go with them; from here on no other
-- transaction can add a comment to a post that is being deleted.
CREATE FUNCTION lock_touched(commands command[]) RETURNS bigint[]
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
            FROM posts, LATERAL (SELECT count(*) AS comments FROM (
                SELECT FROM comments WHERE post_id = posts.id
                LIMIT inline_comments_most() + 1) AS first_ones) AS counted
            WHERE id = ANY (posts_doomed) AND deleted_at IS NULL) AS sized
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

-- Step 4: then what a statement finds under an address stays so until this transaction ends.
CREATE FUNCTION lock_emails(commands command[]) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hash) FROM (
        SELECT DISTINCT hashtextextended(lower(email), 1) AS hash FROM unnest(commands)
        WHERE email IS NOT NULL ORDER BY 1) AS addresses;
END
$$;

CREATE FUNCTION profile_json(name text, email text, avatar text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
    SELECT '{"name":' || to_json(name) || ',"email":' || to_json(email) || ',"avatar":'
           || coalesce(to_json(avatar)::text, 'null') || '}'
$$;

CREATE FUNCTION create_users(commands command[], context batch_context) RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    outcomes command_outcome[];
BEGIN
    WITH decided AS MATERIALIZED (
        SELECT c.*, CASE WHEN c.first AND NOT EXISTS (
                SELECT FROM users u WHERE lower(u.email) = lower(c.email))
            THEN next_id(context.shard) END AS id
        FROM (SELECT *, row_number() OVER (PARTITION BY lower(email) ORDER BY ord) = 1 AS first
              FROM unnest(commands)) AS c
    ), made AS (
        INSERT INTO users (id, name, email, avatar, version)
        SELECT id, name, email, avatar, 1 FROM decided WHERE id IS NOT NULL
    ), said AS (
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        SELECT id, 1, 'user.created', profile_json(name, email, avatar), context.timeline,
               traceparent
        FROM decided WHERE id IS NOT NULL ORDER BY ord
    )
    SELECT array_agg(CASE WHEN id IS NULL THEN refused(ord, 6) ELSE accepted(ord, id, id, 1) END)
    INTO outcomes FROM decided;
    RETURN outcomes;
END
$$;

-- One at a time: each may change what the next one finds (address, version).
CREATE FUNCTION update_users(commands command[], context batch_context) RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    outcomes command_outcome[];
    wanted command;
    found users;
    refusal integer;
BEGIN
    FOREACH wanted IN ARRAY commands LOOP
        SELECT * INTO found FROM users WHERE id = wanted.user_id AND deleted_at IS NULL;
        refusal := CASE
            WHEN found.id IS NULL THEN 3
            WHEN wanted.if_match <> found.version THEN 7
            WHEN EXISTS (SELECT FROM users WHERE lower(email) = lower(wanted.email)
                                             AND id <> wanted.user_id) THEN 6 END;
        IF refusal IS NOT NULL THEN
            outcomes := outcomes || refused(wanted.ord, refusal);
            CONTINUE;
        END IF;
        found.name := coalesce(wanted.name, found.name);
        found.email := coalesce(wanted.email, found.email);
        found.avatar := nullif(coalesce(wanted.avatar, found.avatar), '');
        UPDATE users SET name = found.name, email = found.email, avatar = found.avatar,
                         version = version + 1
        WHERE id = found.id RETURNING version INTO found.version;
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        VALUES (found.id, found.version, 'user.updated',
                profile_json(found.name, found.email, found.avatar), context.timeline,
                wanted.traceparent);
        outcomes := outcomes || accepted(wanted.ord, found.id, found.id, found.version);
    END LOOP;
    RETURN outcomes;
END
$$;

CREATE FUNCTION create_posts(commands command[], context batch_context) RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    outcomes command_outcome[];
BEGIN
    WITH decided AS MATERIALIZED (
        SELECT c.ord, c.title, c.body, c.traceparent, u.id AS author_id,
               CASE WHEN u.id IS NOT NULL THEN next_id(context.shard) END AS id,
               u.version + row_number() OVER (PARTITION BY u.id ORDER BY c.ord) AS version
        FROM unnest(commands) AS c
        LEFT JOIN users u ON u.id = c.user_id AND u.deleted_at IS NULL
    ), bumped AS (
        UPDATE users u SET version = b.version
        FROM (SELECT author_id, max(version) AS version FROM decided WHERE id IS NOT NULL
              GROUP BY author_id) AS b
        WHERE u.id = b.author_id
    ), made AS (
        INSERT INTO posts (id, author_id, title, body)
        SELECT id, author_id, title, body FROM decided WHERE id IS NOT NULL
    ), said AS (
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        SELECT author_id, version, 'post.created', '{"postId":"' || id || '"}', context.timeline,
               traceparent
        FROM decided WHERE id IS NOT NULL ORDER BY ord
    )
    SELECT array_agg(CASE WHEN id IS NULL THEN refused(ord, 3)
                          ELSE accepted(ord, id, author_id, version) END)
    INTO outcomes FROM decided;
    RETURN outcomes;
END
$$;

-- A post whose author is deleted is gone for everyone, even before the sweeper has come to it.
CREATE FUNCTION create_comments(commands command[], context batch_context)
    RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    outcomes command_outcome[];
BEGIN
    WITH found AS (
        SELECT c.ord, c.body, c.traceparent, p.id AS post_id, u.id AS author_id,
               u.version AS version_before, p.id IS NOT NULL AND u.id IS NOT NULL AS accepted
        FROM unnest(commands) AS c
        LEFT JOIN posts p ON p.id = c.target_id AND p.deleted_at IS NULL AND EXISTS (
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

-- Removes comments and tells their living authors, in the order of the arrays. The comments and
-- their authors must be locked. Returns what was removed; version is 0 where the author is deleted.
CREATE FUNCTION remove_comments(ids bigint[], traceparents text[], timeline integer)
    RETURNS TABLE (ord integer, id bigint, author_id bigint, version bigint)
    LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH gone AS (
        DELETE FROM comments c USING unnest(ids, traceparents) WITH ORDINALITY
            AS wanted(id, traceparent, ord)
        WHERE c.id = wanted.id
        RETURNING wanted.ord::integer, c.id, c.post_id, c.author_id, wanted.traceparent
    ), numbered AS MATERIALIZED (
        SELECT g.*, u.id IS NOT NULL AS living,
               coalesce(u.version + row_number() OVER (PARTITION BY g.author_id ORDER BY g.ord), 0)
                   AS version
        FROM gone g LEFT JOIN users u ON u.id = g.author_id AND u.deleted_at IS NULL
    ), bumped AS (
        UPDATE users u SET version = b.version
        FROM (SELECT author_id, max(version) AS version FROM numbered WHERE living
              GROUP BY author_id) AS b
        WHERE u.id = b.author_id
    ), said AS (
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        SELECT author_id, version, 'comment.deleted',
               '{"commentId":"' || id || '","postId":"' || post_id || '"}',
               remove_comments.timeline, traceparent
        FROM numbered WHERE living ORDER BY ord
    )
    SELECT ord, id, author_id, version FROM numbered;
END
$$;

CREATE FUNCTION delete_comments(commands command[], context batch_context)
    RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    ords integer[];
    ids bigint[];
    traceparents text[];
    outcomes command_outcome[];
BEGIN
    -- The first to name a comment removes it, the others find nothing.
    SELECT array_agg(ord ORDER BY ord), array_agg(target_id ORDER BY ord),
           array_agg(traceparent ORDER BY ord)
    INTO ords, ids, traceparents FROM (
        SELECT DISTINCT ON (c.target_id) c.*
        FROM unnest(commands) AS c
        JOIN comments m ON m.id = c.target_id
        JOIN users u ON u.id = m.author_id AND u.deleted_at IS NULL
        ORDER BY c.target_id, c.ord) AS accepted;
    SELECT array_agg(accepted(ords[r.ord], r.id, r.author_id, r.version))
    INTO outcomes FROM remove_comments(ids, traceparents, context.timeline) AS r;
    RETURN coalesce(outcomes, '{}') || ARRAY(
        SELECT refused(ord, 5) FROM unnest(commands)
        WHERE ord <> ALL (coalesce(ords, '{}')));
END
$$;

-- The comments go first, so that the version in the answer is the author's after all of it, also
-- where he has commented on his own post.
CREATE FUNCTION delete_posts(commands command[], posts_inline bigint[], context batch_context)
    RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    accepted command[];
    outcomes command_outcome[];
BEGIN
    SELECT coalesce(array_agg(c::command), '{}') INTO accepted FROM (
        SELECT DISTINCT ON (c.target_id) c.*
        FROM unnest(commands) AS c
        JOIN posts p ON p.id = c.target_id AND p.deleted_at IS NULL
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

-- The personal data goes at once; posts and comments are left to the sweeper.
CREATE FUNCTION delete_users(commands command[], context batch_context) RETURNS command_outcome[]
    LANGUAGE plpgsql AS $$
DECLARE
    outcomes command_outcome[];
    wanted command;
    found users;
    refusal integer;
BEGIN
    FOREACH wanted IN ARRAY commands LOOP
        SELECT * INTO found FROM users WHERE id = wanted.user_id AND deleted_at IS NULL;
        refusal := CASE WHEN found.id IS NULL THEN 3 WHEN wanted.if_match <> found.version THEN 7 END;
        IF refusal IS NOT NULL THEN
            outcomes := outcomes || refused(wanted.ord, refusal);
            CONTINUE;
        END IF;
        UPDATE users SET name = NULL, email = NULL, avatar = NULL, deleted_at = now(),
                         version = version + 1
        WHERE id = found.id RETURNING version INTO found.version;
        INSERT INTO events (user_id, version, type, data, timeline, traceparent)
        VALUES (found.id, found.version, 'user.deleted', NULL, context.timeline,
                wanted.traceparent);
        outcomes := outcomes || accepted(wanted.ord, found.id, found.id, found.version);
    END LOOP;
    RETURN outcomes;
END
$$;

CREATE FUNCTION commands_of(commands command[], wanted smallint) RETURNS command[]
    LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(c ORDER BY c.ord), '{}') FROM unnest(commands) AS c
    WHERE c.op = wanted
$$;

-- The whole batch. The arrays are of one length, a command is what stands at one index (from 1,
-- which is its `ord`). Plans are kept generic and to indexes: a plan made while the tables were
-- small must still be right when they have grown under the session that holds it.
CREATE FUNCTION apply_commands(
    op smallint[], user_id bigint[], target_id bigint[], if_match bigint[], name text[],
    email text[], avatar text[], title text[], body text[], caller text[],
    idempotency_key text[], request_hash bytea[], traceparent text[])
    RETURNS TABLE (ord integer, outcome smallint, replayed boolean, id bigint, user_of bigint,
                   version bigint)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    context batch_context := current_batch_context();
    keyed boolean := array_length(array_remove(idempotency_key, NULL), 1) > 0;
    answered command_outcome[] := '{}';
    outcomes command_outcome[] := '{}';
    pending command[];
    posts_inline bigint[];
BEGIN
    IF keyed THEN
        answered := claim_idempotency_keys(caller, idempotency_key, request_hash);
    END IF;
    SELECT array_agg(ROW(c.ord, c.op, c.user_id, c.target_id, c.if_match, c.name, c.email, c.avatar,
                         c.title, c.body, c.traceparent)::command ORDER BY c.ord)
    INTO pending
    FROM unnest(op, user_id, target_id, if_match, name, email, avatar, title, body, traceparent)
        WITH ORDINALITY AS c(op, user_id, target_id, if_match, name, email, avatar, title, body,
                             traceparent, ord)
    WHERE answered = '{}' OR c.ord <> ALL (ARRAY(SELECT ord FROM unnest(answered)));

    IF pending IS NOT NULL THEN
        posts_inline := lock_touched(pending);
        IF 0 = ANY (op) OR 1 = ANY (op) THEN
            PERFORM lock_emails(pending);
        END IF;
        IF 0 = ANY (op) THEN
            outcomes := outcomes || create_users(commands_of(pending, 0::smallint), context);
        END IF;
        IF 1 = ANY (op) THEN
            outcomes := outcomes || update_users(commands_of(pending, 1::smallint), context);
        END IF;
        IF 2 = ANY (op) THEN
            outcomes := outcomes || create_posts(commands_of(pending, 2::smallint), context);
        END IF;
        IF 3 = ANY (op) THEN
            outcomes := outcomes || create_comments(commands_of(pending, 3::smallint), context);
        END IF;
        IF 4 = ANY (op) THEN
            outcomes := outcomes || delete_comments(commands_of(pending, 4::smallint), context);
        END IF;
        IF 5 = ANY (op) THEN
            outcomes := outcomes
                || delete_posts(commands_of(pending, 5::smallint), posts_inline, context);
        END IF;
        IF 6 = ANY (op) THEN
            outcomes := outcomes || delete_users(commands_of(pending, 6::smallint), context);
        END IF;
    END IF;
    IF keyed THEN
        INSERT INTO idempotency_keys (caller, key, request_hash, outcome, id, user_id, version)
        SELECT apply_commands.caller[o.ord], apply_commands.idempotency_key[o.ord],
               apply_commands.request_hash[o.ord], o.outcome, o.id, o.user_id, o.version
        FROM unnest(outcomes) AS o WHERE apply_commands.idempotency_key[o.ord] IS NOT NULL;
    END IF;
    RETURN QUERY SELECT * FROM unnest(answered || outcomes);
END
$$;
