-- What the write model says to the world, in the transaction of the write; see sql of the relay.

CREATE SEQUENCE event_sequence;

-- data is JSON exactly as published, NULL for a tombstone; timeline is PostgreSQL's, which tells
-- two versions with the same number apart after a failover.
CREATE TABLE events (
    seq bigint NOT NULL DEFAULT nextval('public.event_sequence'),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    user_id bigint NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    type text NOT NULL,
    data text,
    at timestamptz NOT NULL DEFAULT now(),
    timeline integer NOT NULL CHECK (timeline > 0),
    traceparent text,
    PRIMARY KEY (seq, at)
) PARTITION BY RANGE (at);

CREATE INDEX events_xid ON events (xid);

-- How far the relay has published. snapshot: all that is visible in it. While a backlog is on its
-- way: target, the snapshot it leads to, and reached_seq, the last sequence number sent.
CREATE TABLE relay_position (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch bigint NOT NULL,
    system_identifier bigint NOT NULL,
    snapshot pg_snapshot,
    target pg_snapshot,
    reached_seq bigint,
    saved_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((target IS NULL) = (reached_seq IS NULL))
);
INSERT INTO relay_position (epoch, system_identifier)
    SELECT 0, system_identifier FROM pg_control_system();

CREATE FUNCTION event_partition(day date) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
    SELECT 'events_' || to_char(day, 'YYYYMMDD')
$$;

-- Attached rather than made as a partition: attaching lets writers go on.
CREATE FUNCTION create_event_partition(day date) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('public.' || event_partition(day)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.events INCLUDING ALL)',
                   event_partition(day));
    EXECUTE format('ALTER TABLE public.events ATTACH PARTITION public.%I'
                   ' FOR VALUES FROM (%L) TO (%L)', event_partition(day),
                   to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
                   to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
END
$$;

-- Published: written by transactions that had all ended when the relay's position was taken.
CREATE FUNCTION event_partition_published(partition regclass) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    published pg_snapshot;
    last xid8;
BEGIN
    SELECT p.snapshot INTO published FROM relay_position p, pg_control_system() c
        WHERE p.system_identifier = c.system_identifier;
    EXECUTE format('SELECT xid FROM %s ORDER BY xid DESC LIMIT 1', partition) INTO last;
    RETURN last IS NULL OR coalesce(last < pg_snapshot_xmin(published), false);
END
$$;

-- Makes the partitions of today and `days_ahead` more days, and drops those that are older than
-- `retention_days` and wholly published. One caller at a time, the others do nothing. Dropping
-- needs a lock that stops every writer, so it gives up soon and leaves the rest to the next call.
CREATE FUNCTION maintain_events(retention_days integer, days_ahead integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
    SET lock_timeout = '500ms'
AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    partition regclass;
    changed integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tally.maintain_events', 0)) THEN
        RETURN 0;
    END IF;
    FOR ahead IN 0..days_ahead LOOP
        IF to_regclass('public.' || event_partition(today + ahead)) IS NULL THEN
            PERFORM create_event_partition(today + ahead);
            changed := changed + 1;
        END IF;
    END LOOP;
    FOR partition IN
        SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.events'::regclass
          AND c.relname < event_partition(today - retention_days)
        ORDER BY c.relname
    LOOP
        EXIT WHEN NOT event_partition_published(partition);
        BEGIN
            EXECUTE format('DROP TABLE %s', partition);
        EXCEPTION WHEN lock_not_available THEN
            EXIT;
        END;
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END
$$;

SELECT maintain_events(7, 7);
