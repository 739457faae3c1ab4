-- The read models: everything here is derived from `events` and can be derived again.
-- Instants are milliseconds since the epoch, as the events have them.

-- Where each partition is read from next. `topic_id` is the broker's id of the topic and tells a
-- topic that was made anew (offsets from 0 again) from the one that was folded so far.
CREATE TABLE position (
    topic text NOT NULL,
    partition int NOT NULL,
    next_offset bigint NOT NULL,
    topic_id text NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- Moves a position on if it is where the caller believes; else the caller's transaction fails:
-- another projector was here first.
CREATE FUNCTION advance(of_topic text, of_partition int, expected bigint, next bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE position SET next_offset = next
    WHERE topic = of_topic AND partition = of_partition AND next_offset = expected;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'position of %/% is not % any more', of_topic, of_partition, expected
            USING ERRCODE = 'TR001';
    END IF;
END $$;

-- Who archives logs now; a lease by the database's clock, so that copies don't do the work twice.
-- Not derived from the log, and harmless when two hold it.
CREATE TABLE archive_lease (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    holder text NOT NULL,
    until timestamptz NOT NULL
);

CREATE TABLE repository (
    name text PRIMARY KEY,
    provider text NOT NULL,
    clone_url text NOT NULL,
    default_branch text NOT NULL,
    pools jsonb NOT NULL,
    fork_pull_requests text NOT NULL,
    removed boolean NOT NULL,
    indexed_sha text NOT NULL,
    configured_at bigint NOT NULL,
    cell bigint NOT NULL,
    changed_offset bigint NOT NULL
);

CREATE TABLE workflow (
    repository text NOT NULL,
    path text NOT NULL,
    name text NOT NULL,
    triggers jsonb,
    problems jsonb NOT NULL,
    sha text NOT NULL,
    ref text NOT NULL,
    indexed_at bigint,
    latest_run_id text,
    latest_run_number bigint NOT NULL,
    changed_offset bigint NOT NULL,
    PRIMARY KEY (repository, path)
);

CREATE TABLE delivery (
    delivery_id text PRIMARY KEY,
    repository text NOT NULL,
    status text NOT NULL,
    source text NOT NULL,
    provider text NOT NULL,
    event text NOT NULL,
    action text NOT NULL,
    ref text NOT NULL,
    sha text NOT NULL,
    number bigint NOT NULL,
    fork boolean NOT NULL,
    actor text NOT NULL,
    message text NOT NULL,
    workflow text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    outcomes jsonb NOT NULL,
    run_ids jsonb NOT NULL,
    duplicates bigint NOT NULL,
    received_at bigint,
    planned_at bigint,
    cell bigint NOT NULL,
    created_offset bigint NOT NULL,
    changed_offset bigint NOT NULL
);
CREATE INDEX delivery_newest ON delivery (created_offset DESC, delivery_id DESC);
CREATE INDEX delivery_of_repository ON delivery (repository, created_offset DESC, delivery_id DESC);

CREATE TABLE run (
    run_id text PRIMARY KEY,
    repository text NOT NULL,
    workflow text NOT NULL,
    workflow_name text NOT NULL,
    run_name text NOT NULL,
    run_number bigint NOT NULL,
    run_attempt bigint NOT NULL,
    event text NOT NULL,
    ref text NOT NULL,
    head_ref text NOT NULL,
    sha text NOT NULL,
    number bigint NOT NULL,
    fork boolean NOT NULL,
    actor text NOT NULL,
    message text NOT NULL,
    delivery_id text,
    status text NOT NULL,
    conclusion text,
    reason text NOT NULL,
    problems jsonb NOT NULL,
    approval text NOT NULL,
    approved_by text NOT NULL,
    cancel_requested_by text NOT NULL,
    cancel_requested_at bigint,
    created_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    cell bigint NOT NULL,
    created_offset bigint NOT NULL,
    changed_offset bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX run_newest ON run (created_at DESC, run_id DESC);
CREATE INDEX run_of_repository ON run (repository, created_at DESC, run_id DESC);
CREATE INDEX run_of_workflow ON run (repository, workflow, created_at DESC, run_id DESC);
CREATE INDEX run_open ON run (created_at DESC, run_id DESC) WHERE status <> 'completed';
CREATE INDEX run_changed ON run (cell, changed_offset);

CREATE TABLE job (
    job_id text PRIMARY KEY,
    run_id text NOT NULL,
    repository text NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    position bigint NOT NULL,
    needs jsonb NOT NULL,
    matrix_of text,
    leg bigint NOT NULL,
    matrix jsonb,
    expanded boolean NOT NULL,
    status text NOT NULL,
    conclusion text,
    reason text NOT NULL,
    message text NOT NULL,
    blocked_reason text,
    blocked_detail text NOT NULL,
    blockers jsonb NOT NULL,
    pool text NOT NULL,
    labels jsonb NOT NULL,
    live_attempt bigint NOT NULL,
    outputs jsonb NOT NULL,
    summary text NOT NULL,
    queued_at bigint,
    started_at bigint,
    finished_at bigint,
    changed_offset bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX job_of_run ON job (run_id, position, leg);
CREATE INDEX job_queue ON job (queued_at, job_id) WHERE status IN ('queued', 'assigned');

CREATE TABLE attempt (
    job_id text NOT NULL,
    attempt bigint NOT NULL,
    run_id text NOT NULL,
    repository text NOT NULL,
    phase text NOT NULL,
    pool text NOT NULL,
    scheduled_because text NOT NULL,
    queued_at bigint,
    assigned_at bigint,
    started_at bigint,
    finished_at bigint,
    lost_at bigint,
    runner_id text,
    boot_id text,
    runner_name text NOT NULL,
    isolation text NOT NULL,
    conclusion text,
    reason text NOT NULL,
    message text NOT NULL,
    log_lines bigint NOT NULL,
    log_sha256 text NOT NULL,
    log_bytes bigint NOT NULL,
    log_complete boolean,
    log_detail text NOT NULL,
    log_archived_offset bigint,
    changed_offset bigint NOT NULL,
    PRIMARY KEY (job_id, attempt)
) WITH (fillfactor = 80);
CREATE INDEX attempt_of_run ON attempt (run_id);
CREATE INDEX attempt_live ON attempt (runner_id) WHERE phase IN ('assigned', 'started', 'lost');
CREATE INDEX attempt_unarchived ON attempt (finished_at)
    WHERE log_archived_offset IS NULL AND phase = 'ended' AND started_at IS NOT NULL;

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
    PRIMARY KEY (job_id, attempt, number)
) WITH (fillfactor = 80);
CREATE INDEX step_of_run ON step (run_id);

CREATE TABLE annotation (
    job_id text NOT NULL,
    attempt bigint NOT NULL,
    ordinal bigint NOT NULL,
    run_id text NOT NULL,
    level text NOT NULL,
    title text NOT NULL,
    message text NOT NULL,
    path text NOT NULL,
    line bigint NOT NULL,
    end_line bigint NOT NULL,
    col bigint NOT NULL,
    end_col bigint NOT NULL,
    step bigint NOT NULL,
    PRIMARY KEY (job_id, attempt, ordinal)
);
CREATE INDEX annotation_of_run ON annotation (run_id);

CREATE TABLE log_segment (
    job_id text NOT NULL,
    attempt bigint NOT NULL,
    first_line bigint NOT NULL,
    lines bigint NOT NULL,
    uri text NOT NULL,
    sha256 text NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (job_id, attempt, first_line)
);

CREATE TABLE runner (
    runner_id text PRIMARY KEY,
    boot_id text NOT NULL,
    pool text NOT NULL,
    labels jsonb NOT NULL,
    slots bigint NOT NULL,
    lane bigint NOT NULL,
    name text NOT NULL,
    isolation text NOT NULL,
    version text NOT NULL,
    hostname text NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    joined_at bigint,
    gone_at bigint,
    changed_offset bigint NOT NULL
);

CREATE TABLE pool (
    name text PRIMARY KEY,
    labels jsonb NOT NULL,
    actor text NOT NULL,
    configured_at bigint NOT NULL,
    changed_offset bigint NOT NULL
);

-- The audit trail: a pointer into the log and the event's data without what is large.
CREATE TABLE event (
    cell bigint NOT NULL,
    "offset" bigint NOT NULL,
    event_id text NOT NULL,
    kind text NOT NULL,
    occurred_at bigint NOT NULL,
    repository text NOT NULL,
    run_id text,
    caused_by text,
    delivery_id text,
    job_id text,
    attempt bigint,
    runner_id text,
    boot_id text,
    data jsonb NOT NULL,
    PRIMARY KEY (cell, "offset")
);
CREATE INDEX event_of_run ON event (run_id, "offset") WHERE run_id IS NOT NULL;
CREATE INDEX event_of_delivery ON event (delivery_id, "offset")
    WHERE delivery_id IS NOT NULL AND run_id IS NULL;
