-- How it was done: what a receipt may say of free space and of files, whichever run it is that
-- writes it. What was done before this was known counts as not done.
ALTER TABLE erasures
    ADD COLUMN tables_written_anew_at timestamptz, -- by VACUUM FULL; vacuumed_at is of either kind
    ADD COLUMN files_written_anew_at timestamptz;  -- all that Redis keeps
