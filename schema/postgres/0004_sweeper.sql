-- The background half of deleting, in bounded pieces with the lock order of 0003_commands.sql. What
-- is to be done is read from the rows themselves, so a crash between two pieces loses nothing.

-- Removes these comments, with their events; how many were named, which is what tells the caller
-- whether there may be more (another transaction may have removed some of them first).
CREATE FUNCTION sweep_comments(ids bigint[]) RETURNS integer
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM comments WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
    PERFORM FROM users
        WHERE id = ANY (ARRAY(SELECT DISTINCT author_id FROM comments WHERE id = ANY (ids)))
        ORDER BY id FOR NO KEY UPDATE;
    PERFORM remove_comments(ids, NULL, (current_batch_context()).timeline);
    RETURN cardinality(ids);
END
$$;

-- A marked post: its comments, then the post itself.
CREATE FUNCTION sweep_post(post bigint, most integer) RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    swept integer;
BEGIN
    PERFORM FROM posts WHERE id = post FOR UPDATE;
    swept := sweep_comments(
        ARRAY(SELECT id FROM comments WHERE post_id = post ORDER BY id LIMIT most));
    IF swept < most THEN
        DELETE FROM posts WHERE id = post;
        swept := swept + 1;
    END IF;
    RETURN swept;
END
$$;

-- A deleted user: marks the posts, which are then swept like any other, and removes the comments,
-- without events: the user has none to come any more.
CREATE FUNCTION sweep_user(dead bigint, most integer) RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[] := ARRAY(SELECT id FROM posts WHERE author_id = dead AND deleted_at IS NULL
                          ORDER BY id LIMIT most FOR UPDATE);
    swept integer;
BEGIN
    IF ids <> '{}' THEN
        UPDATE posts SET deleted_at = now() WHERE id = ANY (ids);
        RETURN cardinality(ids);
    END IF;
    swept := sweep_comments(
        ARRAY(SELECT id FROM comments WHERE author_id = dead ORDER BY id LIMIT most));
    IF swept < most THEN
        UPDATE users SET swept_at = now() WHERE id = dead;
        swept := swept + 1;
    END IF;
    RETURN swept;
END
$$;

-- One piece of at most about `most` rows; 0 where there is nothing to do or another session is at
-- it.
CREATE FUNCTION sweep_deleted(most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET jit = off
AS $$
DECLARE
    found bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tally.sweep_deleted', 0)) THEN
        RETURN 0;
    END IF;
    SELECT id INTO found FROM posts WHERE deleted_at IS NOT NULL ORDER BY id LIMIT 1;
    IF found IS NOT NULL THEN
        RETURN sweep_post(found, most);
    END IF;
    SELECT id INTO found FROM users WHERE deleted_at IS NOT NULL AND swept_at IS NULL
        ORDER BY id LIMIT 1;
    RETURN CASE WHEN found IS NULL THEN 0 ELSE sweep_user(found, most) END;
END
$$;

-- Removes at most `most` outcomes that are older than a day; how many there were.
CREATE FUNCTION expire_idempotency_keys(most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    removed integer;
BEGIN
    DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
        ORDER BY created_at LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
