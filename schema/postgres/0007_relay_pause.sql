-- A paused relay keeps its lead and publishes nothing. It reads this at least once a second.
ALTER TABLE relay_position
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN pause_reason text NOT NULL DEFAULT ''
        CHECK (char_length(pause_reason) <= 200);
