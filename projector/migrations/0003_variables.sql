-- Values of the `vars` context. Their events are new with this table: nothing is folded again.

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
