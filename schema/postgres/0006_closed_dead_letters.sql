-- What operators have done with dead letters: a letter without a row here is open. In PostgreSQL,
-- since the read model may be thrown away at any time, and Kafka's log of letters is append-only.
-- written_at_ms tells a letter from one with the same offset in a topic that was made anew.
CREATE TABLE closed_dead_letters (
    topic text NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    record_offset bigint NOT NULL CHECK (record_offset >= 0),
    written_at_ms bigint NOT NULL,
    action text NOT NULL CHECK (action IN ('retried', 'discarded')),
    reason text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 500),
    closed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, record_offset)
);
