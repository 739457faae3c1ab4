-- Artifacts, and the groups of a step's log. What events said of them was not in the tables, so
-- all of `events` is folded again: the projector does it when it starts, and until it is through
-- the tables know less than before.

CREATE TABLE artifact (
    run_id text NOT NULL,
    slot text NOT NULL,
    artifact_id text NOT NULL,
    repository text NOT NULL,
    job_id text NOT NULL,
    attempt bigint NOT NULL,
    name text NOT NULL,
    size_bytes bigint NOT NULL,
    files bigint NOT NULL,
    sha256 text NOT NULL,
    uri text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    changed_offset bigint NOT NULL,
    PRIMARY KEY (run_id, slot)
);
CREATE INDEX artifact_by_id ON artifact (artifact_id);

DROP TABLE step;
CREATE TABLE step (
    job_id text NOT NULL,
    attempt bigint NOT NULL,
    number bigint NOT NULL,
    run_id text NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    conclusion text,
    outcome text,
    exit_code bigint,
    reason text NOT NULL,
    started_at bigint,
    finished_at bigint,
    first_line bigint NOT NULL,
    lines bigint NOT NULL,
    groups jsonb NOT NULL,
    PRIMARY KEY (job_id, attempt, number)
) WITH (fillfactor = 80);
CREATE INDEX step_of_run ON step (run_id);

TRUNCATE repository, workflow, delivery, run, job, attempt, annotation, log_segment, runner, pool,
    event;
DELETE FROM position WHERE topic = 'events';
