-- What POST /v1/posts does, as a service would that runs one command in one transaction.
-- Variables: first, users, title, body.
\set author :first + random(0, :users - 1)
BEGIN;
UPDATE users SET version = version + 1 WHERE id = :author AND deleted_at IS NULL RETURNING version \gset
INSERT INTO posts (id, author_id, title, body)
    VALUES (next_id(0::smallint), :author, :title::text, :body::text) RETURNING id AS post \gset
INSERT INTO events (user_id, version, type, data, timeline)
    VALUES (:author, :version, 'post.created', '{"postId":"' || :post::bigint || '"}', 1);
COMMIT;
