-- The history of one user, which `tallyctl explain` reads. Each partition gets its own, also those
-- that create_event_partition() makes later (LIKE events INCLUDING ALL).
CREATE INDEX events_of_user ON events (user_id, version);
