-- Values of the `vars` context. Older events have some, too (RepositoryConfigured.variables); they
-- come into this table because 0002 has all of `events` folded again in the same start.

CREATE TABLE variable (
    repository text NOT NULL,
    environment text NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    removed boolean NOT NULL,
    actor text NOT NULL,
    set_at bigint NOT NULL,
    PRIMARY KEY (repository, environment, name)
);
