-- Erasure: what deleting a user leaves behind in the write model, and the book of what was removed,
-- so that an erasure can be interrupted anywhere, run again, and still say the whole of it. Ids,
-- moments and numbers only.
CREATE TABLE erasures (
    user_id bigint PRIMARY KEY REFERENCES users (id),
    begun_at timestamptz NOT NULL DEFAULT now(),
    posts bigint,    -- of the user when the erasure deleted it; NULL: it was deleted before
    comments bigint,
    events_redacted bigint NOT NULL DEFAULT 0,
    keys_removed bigint NOT NULL DEFAULT 0,
    reasons_redacted bigint NOT NULL DEFAULT 0,  -- of closed dead letters
    profiles_removed bigint NOT NULL DEFAULT 0,  -- from generations of the read model not live
    published_at timestamptz, -- all events of the user were published by then, ...
    log_end bigint,           -- ... before this offset of the user's partition
    vacuumed_at timestamptz,
    completed_at timestamptz
);

-- What stands for an erased profile: valid for every reader of the event, and nobody's address
-- (RFC 2606 section 2).
CREATE FUNCTION erased_profile() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{"name":"Erased","email":"erased@erased.invalid","avatar":null}'
$$;

-- Deletes the user as the API does, if that has not been done, and opens the book. False: there
-- never was such a user.
CREATE FUNCTION begin_erasure(erased bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    living boolean;
    posts_owned bigint;
    comments_owned bigint;
    refusal smallint;
BEGIN
    SELECT deleted_at IS NULL INTO living FROM users WHERE id = erased FOR NO KEY UPDATE;
    IF living IS NULL THEN
        RETURN false;
    END IF;
    IF living THEN
        -- The row lock holds off every writer of new ones.
        SELECT count(*) INTO posts_owned FROM posts WHERE author_id = erased AND deleted_at IS NULL;
        SELECT count(*) INTO comments_owned FROM comments WHERE author_id = erased;
        SELECT outcome INTO refusal FROM apply_commands(
            ARRAY[6]::smallint[], ARRAY[erased], ARRAY[NULL]::bigint[], ARRAY[NULL]::bigint[],
            ARRAY[NULL]::text[], ARRAY[NULL]::text[], ARRAY[NULL]::text[], ARRAY[NULL]::text[],
            ARRAY[NULL]::text[], ARRAY[NULL]::text[], ARRAY[NULL]::text[], ARRAY[NULL]::bytea[],
            ARRAY[NULL]::text[]);
        IF refusal IS DISTINCT FROM 0 THEN
            RAISE EXCEPTION 'deleting user % was refused: %', erased, refusal;
        END IF;
    END IF;
    INSERT INTO erasures (user_id, posts, comments) VALUES (erased, posts_owned, comments_owned)
        ON CONFLICT (user_id) DO NOTHING;
    RETURN true;
END
$$;

-- One piece of at most `most` events and `most` idempotency keys of a deleted user; how many there
-- were, 0 at the end. Events keep number, version, type and xid, so that counts stay explainable
-- and the relay's position means what it meant.
CREATE FUNCTION scrub_erased(erased bigint, most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
    SET enable_seqscan = off
    SET jit = off
AS $$
DECLARE
    events_now integer;
    keys_now integer;
BEGIN
    PERFORM FROM users WHERE id = erased AND deleted_at IS NOT NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'user % is not deleted', erased;
    END IF;
    UPDATE events SET data = erased_profile()
    WHERE user_id = erased AND type IN ('user.created', 'user.updated')
      AND data IS DISTINCT FROM erased_profile()
      AND version <= (SELECT max(version) FROM (
            SELECT version FROM events
            WHERE user_id = erased AND type IN ('user.created', 'user.updated')
              AND data IS DISTINCT FROM erased_profile()
            ORDER BY version LIMIT most) AS first_ones);
    GET DIAGNOSTICS events_now = ROW_COUNT;
    DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency_keys WHERE user_id = erased OR caller = erased::text
        LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS keys_now = ROW_COUNT;
    UPDATE erasures SET events_redacted = events_redacted + events_now,
                        keys_removed = keys_removed + keys_now
    WHERE user_id = erased AND events_now + keys_now > 0;
    RETURN events_now + keys_now;
END
$$;

-- An operator's words about a dead letter of the user; how many there were.
CREATE FUNCTION scrub_erased_letter(erased bigint, topic text, partition integer,
                                    record_offset bigint)
    RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    reasons integer;
BEGIN
    UPDATE closed_dead_letters l SET reason = 'erased'
    WHERE l.topic = scrub_erased_letter.topic AND l.partition = scrub_erased_letter.partition
      AND l.record_offset = scrub_erased_letter.record_offset AND reason <> 'erased';
    GET DIAGNOSTICS reasons = ROW_COUNT;
    UPDATE erasures SET reasons_redacted = reasons_redacted + reasons
    WHERE user_id = erased AND reasons > 0;
    RETURN reasons;
END
$$;
