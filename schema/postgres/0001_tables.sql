-- The write model. Every count that Tally shows is a count over these tables.

-- Which shard this database is: ten bits of every id made here.
CREATE TABLE instance (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 1023)
);
INSERT INTO instance (shard) VALUES (0);

CREATE SEQUENCE id_sequence;

-- 41 bits of milliseconds since 2024-01-01, 10 of shard, 12 of sequence. Kept to one expression so
-- that the planner inlines it. Two equal ids would take a clock set back by just the time in which
-- the sequence went round; the primary key refuses them, and the batcher runs the command again.
CREATE FUNCTION next_id(shard smallint) RETURNS bigint
    LANGUAGE sql VOLATILE AS $$
    SELECT ((floor(date_part('epoch', clock_timestamp()) * 1000)::bigint - 1704067200000) << 22)
           | (shard::bigint << 12)
           | (nextval('public.id_sequence') & 4095)
$$;

-- A deleted user stays as a row without personal data: its id and version must never come again.
-- swept_at: nothing of a deleted user is left in posts and comments.
CREATE TABLE users (
    id bigint PRIMARY KEY,
    name text CHECK (char_length(name) BETWEEN 1 AND 200),
    email text CHECK (char_length(email) BETWEEN 3 AND 254),
    avatar text CHECK (char_length(avatar) BETWEEN 1 AND 2048),
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    swept_at timestamptz,
    CONSTRAINT users_living_have_a_profile CHECK (
        CASE WHEN deleted_at IS NULL THEN name IS NOT NULL AND email IS NOT NULL AND swept_at IS NULL
             ELSE name IS NULL AND email IS NULL AND avatar IS NULL END)
) WITH (fillfactor = 80); -- a version is bumped in place: room for it on the page

CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE INDEX users_to_sweep ON users (id) WHERE deleted_at IS NOT NULL AND swept_at IS NULL;

-- deleted_at: gone for everyone, but its comments are still being taken away (sweep_deleted).
CREATE TABLE posts (
    id bigint PRIMARY KEY,
    author_id bigint NOT NULL REFERENCES users (id),
    title text CHECK (char_length(title) BETWEEN 1 AND 200),
    body text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 50000),
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE INDEX posts_of_author ON posts (author_id) WHERE deleted_at IS NULL;
CREATE INDEX posts_to_sweep ON posts (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE comments (
    id bigint PRIMARY KEY,
    post_id bigint NOT NULL REFERENCES posts (id),
    author_id bigint NOT NULL REFERENCES users (id),
    body text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 10000),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX comments_of_post ON comments (post_id);
CREATE INDEX comments_of_author ON comments (author_id);

-- Outcomes of commands that carried an Idempotency-Key; outcome is a number of TALLY_STATUS_LIST.
CREATE TABLE idempotency_keys (
    caller text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    outcome smallint NOT NULL,
    id bigint,
    user_id bigint,
    version bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
