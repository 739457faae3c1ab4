-- Named queries of the API. Each returns one row with one column: JSON text that is sent as it is.
-- {{name}} puts in a fragment; {{where}} the filters that a request has. `%(origin)s` is the URL
-- of the public origin. Instants are milliseconds since the epoch.

-- name: as_of
coalesce((SELECT min(next_offset) - 1 FROM position WHERE topic = 'events'), -1)

-- name: run_fields
'run_id', r.run_id, 'repository', r.repository, 'workflow', r.workflow,
'workflow_name', r.workflow_name, 'run_name', r.run_name, 'run_number', r.run_number,
'run_attempt', r.run_attempt, 'event', r.event, 'ref', r.ref, 'head_ref', r.head_ref,
'sha', r.sha, 'number', r.number, 'fork', r.fork, 'actor', r.actor, 'message', r.message,
'status', r.status, 'conclusion', r.conclusion, 'reason', r.reason,
'approval', nullif(r.approval, ''), 'approved_by', nullif(r.approved_by, ''),
'cancel_requested_by', nullif(r.cancel_requested_by, ''),
'cancel_requested_at', r.cancel_requested_at,
'created_at', r.created_at, 'started_at', r.started_at, 'finished_at', r.finished_at,
'delivery_id', r.delivery_id, 'changed_offset', r.changed_offset,
'url', %(origin)s || '/runs/' || r.run_id

-- name: runs
SELECT json_build_object(
    'items', coalesce(json_agg(json_build_object({{run_fields}})
        ORDER BY r.created_at DESC, r.run_id DESC), '[]'),
    'as_of', {{as_of}})::text
FROM (SELECT * FROM run {{where}} ORDER BY created_at DESC, run_id DESC LIMIT %(limit)s) r

-- name: runs_changed
SELECT json_build_object(
    'items', coalesce(json_agg(json_build_object({{run_fields}})
        ORDER BY r.changed_offset, r.run_id), '[]'),
    'as_of', {{as_of}})::text
FROM (SELECT * FROM run {{where}} ORDER BY changed_offset DESC, run_id LIMIT %(limit)s) r

-- name: log_fields
'lines', a.log_lines,
'complete', coalesce(a.log_complete,
    a.phase = 'ended' AND a.log_sha256 <> '' AND a.log_archived_offset IS NOT NULL),
'sha256', nullif(a.log_sha256, ''), 'archived', a.log_archived_offset IS NOT NULL,
'size_bytes', a.log_bytes, 'detail', nullif(a.log_detail, '')

-- name: step_fields
'number', s.number, 'name', s.name,
'status', CASE WHEN a.phase = 'ended' THEN 'completed' ELSE s.status END,
'conclusion', CASE WHEN s.status <> 'completed' AND a.phase = 'ended'
    THEN coalesce(nullif(a.conclusion, 'success'), 'cancelled') ELSE s.conclusion END,
'outcome', s.outcome, 'exit_code', s.exit_code, 'reason', nullif(s.reason, ''),
'started_at', s.started_at, 'finished_at', coalesce(s.finished_at,
    CASE WHEN a.phase = 'ended' THEN a.finished_at END),
'first_line', s.first_line, 'lines', s.lines

-- name: attempt_fields
'attempt', a.attempt, 'phase', a.phase, 'queued_at', a.queued_at, 'assigned_at', a.assigned_at,
'started_at', a.started_at, 'finished_at', a.finished_at, 'runner_id', a.runner_id,
'boot_id', a.boot_id, 'runner_name', nullif(a.runner_name, ''), 'pool', a.pool,
'isolation', nullif(a.isolation, ''), 'scheduled_because', a.scheduled_because,
'conclusion', a.conclusion, 'reason', a.reason, 'message', nullif(a.message, ''),
'log', json_build_object({{log_fields}})

-- name: job_fields
'job_id', j.job_id, 'run_id', j.run_id, 'key', j.key, 'name', j.name, 'needs', j.needs,
'matrix', j.matrix, 'matrix_of', j.matrix_of, 'status', j.status, 'conclusion', j.conclusion,
'reason', j.reason, 'message', nullif(j.message, ''),
'blocked', CASE WHEN j.blocked_reason IS NOT NULL THEN json_build_object(
    'reason', j.blocked_reason, 'detail', j.blocked_detail, 'blockers', j.blockers) END,
'pool', nullif(j.pool, ''), 'labels', j.labels, 'live_attempt', nullif(j.live_attempt, 0),
'queued_at', j.queued_at, 'started_at', j.started_at, 'finished_at', j.finished_at,
'outputs', j.outputs, 'summary', nullif(j.summary, ''),
'attempts', coalesce((SELECT json_agg(json_build_object({{attempt_fields}}) ORDER BY a.attempt)
    FROM attempt a WHERE a.job_id = j.job_id), '[]'),
'steps', coalesce((SELECT json_agg(json_build_object({{step_fields}}) ORDER BY s.number)
    FROM step s JOIN attempt a ON a.job_id = s.job_id AND a.attempt = s.attempt
    WHERE s.job_id = j.job_id AND s.attempt = %(attempt)s), (SELECT json_agg(json_build_object(
        {{step_fields}}) ORDER BY s.number)
    FROM step s JOIN attempt a ON a.job_id = s.job_id AND a.attempt = s.attempt
    WHERE s.job_id = j.job_id AND s.attempt = j.live_attempt), '[]'),
'annotations', coalesce((SELECT json_agg(json_build_object('attempt', n.attempt,
        'level', n.level, 'title', n.title, 'message', n.message, 'path', n.path,
        'line', n.line, 'end_line', n.end_line, 'column', n.col, 'end_column', n.end_col,
        'step', n.step) ORDER BY n.ordinal)
    FROM annotation n WHERE n.job_id = j.job_id AND n.attempt = j.live_attempt), '[]')

-- name: run
SELECT json_build_object({{run_fields}}, 'problems', r.problems,
    'jobs', coalesce((SELECT json_agg(json_build_object({{job_fields}})
            ORDER BY j.position, j.key, j.leg, j.job_id)
        FROM job j WHERE j.run_id = r.run_id AND NOT j.expanded), '[]'),
    'as_of', {{as_of}})::text
FROM run r WHERE r.run_id = %(run_id)s

-- name: run_repository
SELECT json_build_object('repository', r.repository, 'cell', r.cell)::text
FROM run r WHERE r.run_id = %(run_id)s

-- name: job
SELECT json_build_object({{job_fields}}, 'repository', j.repository, 'as_of', {{as_of}})::text
FROM job j WHERE j.job_id = %(job_id)s

-- name: artifact_fields
'artifact_id', t.artifact_id, 'run_id', t.run_id, 'repository', t.repository,
'job_id', t.job_id, 'job', coalesce((SELECT j.name FROM job j WHERE j.job_id = t.job_id), ''),
'attempt', t.attempt, 'name', t.name, 'size_bytes', t.size_bytes, 'files', t.files,
'sha256', t.sha256, 'created_at', t.created_at, 'expires_at', nullif(t.expires_at, 0),
'expired', t.expires_at > 0 AND t.expires_at <= %(now_ms)s,
'url', %(origin)s || '/api/v1/artifacts/' || t.artifact_id,
'download_url', %(origin)s || '/api/v1/artifacts/' || t.artifact_id || '/zip'

-- name: run_artifacts
SELECT json_build_object(
    'items', coalesce((SELECT json_agg(json_build_object({{artifact_fields}})
            ORDER BY t.name)
        FROM artifact t WHERE t.run_id = r.run_id), '[]'),
    'as_of', {{as_of}})::text
FROM run r WHERE r.run_id = %(run_id)s

-- name: artifact
SELECT json_build_object({{artifact_fields}}, 'as_of', {{as_of}})::text
FROM artifact t WHERE t.artifact_id = %(artifact_id)s

-- name: artifact_place
SELECT json_build_object('uri', t.uri, 'repository', t.repository, 'name', t.name,
    'size_bytes', t.size_bytes, 'sha256', t.sha256, 'created_at', t.created_at,
    'expires_at', t.expires_at)::text
FROM artifact t WHERE t.artifact_id = %(artifact_id)s

-- name: variables
-- No row for a repository that is not served; those of the installation have '' for it.
SELECT json_build_object('items', coalesce((SELECT json_agg(json_build_object(
            'name', v.name, 'value', v.value, 'set_at', v.set_at, 'actor', v.actor
        ) ORDER BY v.name)
        FROM variable v WHERE v.repository = %(repository)s AND v.environment = %(environment)s
            AND NOT v.removed), '[]'),
    'as_of', {{as_of}})::text
WHERE %(repository)s = '' OR EXISTS (
    SELECT FROM repository r WHERE r.name = %(repository)s AND NOT r.removed)

-- name: variables_beside
SELECT json_build_object('count', count(*), 'bytes', coalesce(sum(
        octet_length(v.name) + octet_length(v.value)), 0))::text
FROM variable v WHERE v.repository = %(repository)s AND v.environment = %(environment)s
    AND NOT v.removed AND v.name <> %(name)s

-- name: annotation_fields
'run_id', n.run_id, 'job_id', n.job_id, 'job', j.name, 'attempt', n.attempt,
'level', n.level, 'title', n.title, 'message', n.message, 'path', n.path,
'line', n.line, 'end_line', n.end_line, 'column', n.col, 'end_column', n.end_col,
'step', n.step, 'step_name', s.name

-- name: run_annotations
-- Of each job's live attempt, in the order of the jobs; what is worst comes first in a job.
SELECT json_build_object(
    'items', coalesce((SELECT json_agg(json_build_object({{annotation_fields}})
            ORDER BY j.position, j.key, j.leg, j.job_id,
                array_position(ARRAY['error', 'warning', 'notice'], n.level), n.ordinal)
        FROM annotation n JOIN job j ON j.job_id = n.job_id AND j.live_attempt = n.attempt
        LEFT JOIN step s ON s.job_id = n.job_id AND s.attempt = n.attempt AND s.number = n.step
        WHERE n.run_id = r.run_id
            AND (%(level)s::text IS NULL OR n.level = %(level)s)), '[]'),
    'as_of', {{as_of}})::text
FROM run r WHERE r.run_id = %(run_id)s

-- name: attempt_groups
SELECT json_build_object('items', coalesce((
    SELECT json_agg(json_build_object('step', s.number, 'step_name', s.name,
            'title', g.one->>'title', 'first_line', (g.one->>'first_line')::bigint,
            'last_line', (g.one->>'first_line')::bigint + (g.one->>'lines')::bigint - 1,
            'lines', (g.one->>'lines')::bigint) ORDER BY s.number, g.place)
        FROM step s, jsonb_array_elements(s.groups) WITH ORDINALITY AS g(one, place)
        WHERE s.job_id = a.job_id AND s.attempt = a.attempt
            AND (%(step)s::bigint IS NULL OR s.number = %(step)s)), '[]'),
    'as_of', {{as_of}})::text
FROM attempt a WHERE a.job_id = %(job_id)s AND a.attempt = %(attempt)s

-- name: event_fields
'offset', e."offset", 'cell', e.cell, 'event_id', e.event_id, 'kind', e.kind,
'occurred_at', e.occurred_at, 'caused_by', e.caused_by, 'delivery_id', e.delivery_id,
'run_id', e.run_id, 'job_id', e.job_id, 'attempt', e.attempt, 'runner_id', e.runner_id,
'boot_id', e.boot_id, 'data', e.data

-- name: run_events
-- What is about the run, and what its delivery began with: every cause is among them.
SELECT json_build_object(
    'items', coalesce(json_agg(json_build_object({{event_fields}}) ORDER BY e."offset"), '[]'),
    'as_of', {{as_of}})::text
FROM (
    SELECT * FROM (
        (SELECT * FROM event WHERE run_id = %(run_id)s AND "offset" > %(after)s
         ORDER BY "offset" LIMIT %(limit)s)
        UNION ALL
        (SELECT v.* FROM event v JOIN run r ON v.delivery_id = r.delivery_id
         WHERE r.run_id = %(run_id)s AND v.run_id IS NULL AND v."offset" > %(after)s
         ORDER BY v."offset" LIMIT %(limit)s)
    ) both_kinds ORDER BY "offset" LIMIT %(limit)s
) e

-- name: delivery_fields
'delivery_id', d.delivery_id, 'repository', d.repository, 'status', d.status,
'source', d.source, 'provider', d.provider, 'event', d.event, 'action', d.action, 'ref', d.ref,
'sha', d.sha, 'number', d.number, 'fork', d.fork, 'actor', d.actor, 'message', d.message,
'workflow', d.workflow, 'reason', d.reason, 'detail', d.detail, 'run_ids', d.run_ids,
'duplicates', d.duplicates, 'received_at', d.received_at, 'planned_at', d.planned_at,
'offset', d.created_offset

-- name: deliveries
SELECT json_build_object(
    'items', coalesce(json_agg(json_build_object({{delivery_fields}})
        ORDER BY d.created_offset DESC, d.delivery_id DESC), '[]'),
    'as_of', {{as_of}})::text
FROM (SELECT * FROM delivery {{where}}
      ORDER BY created_offset DESC, delivery_id DESC LIMIT %(limit)s) d

-- name: delivery
SELECT json_build_object({{delivery_fields}}, 'outcomes', d.outcomes, 'as_of', {{as_of}})::text
FROM delivery d WHERE d.delivery_id = %(delivery_id)s

-- name: repository_fields
'name', p.name, 'provider', p.provider, 'clone_url', p.clone_url,
'default_branch', p.default_branch, 'pools', p.pools,
'fork_pull_requests', p.fork_pull_requests, 'configured_at', p.configured_at,
'open_runs', (SELECT count(*) FROM run r WHERE r.repository = p.name AND r.status <> 'completed'),
'latest_run', (SELECT json_build_object({{run_fields}}) FROM run r WHERE r.repository = p.name
    ORDER BY r.created_at DESC, r.run_id DESC LIMIT 1)

-- name: repositories
SELECT json_build_object(
    'items', coalesce(json_agg(json_build_object({{repository_fields}}) ORDER BY p.name), '[]'),
    'as_of', {{as_of}})::text
FROM (SELECT * FROM repository WHERE NOT removed AND name > %(after)s
      ORDER BY name LIMIT %(limit)s) p

-- name: repository
SELECT json_build_object({{repository_fields}}, 'removed', p.removed,
    'workflows', coalesce((SELECT json_agg(json_build_object({{workflow_fields}}) ORDER BY w.path)
        FROM workflow w WHERE w.repository = p.name), '[]'),
    'as_of', {{as_of}})::text
FROM repository p WHERE p.name = %(name)s

-- name: workflow_fields
'repository', w.repository, 'path', w.path, 'name', w.name, 'triggers', w.triggers,
'problems', w.problems, 'sha', w.sha, 'ref', w.ref, 'indexed_at', w.indexed_at,
'on_default_branch', w.sha <> '' AND w.sha = coalesce((SELECT q.indexed_sha FROM repository q
    WHERE q.name = w.repository), ''),
'latest_run_id', w.latest_run_id, 'latest_run_number', nullif(w.latest_run_number, 0)

-- name: workflows
SELECT json_build_object(
    'items', coalesce(json_agg(json_build_object({{workflow_fields}})
        ORDER BY w.repository, w.path), '[]'),
    'as_of', {{as_of}})::text
FROM (SELECT * FROM workflow {{where}} ORDER BY repository, path LIMIT %(limit)s) w

-- name: runners
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
        'runner_id', n.runner_id, 'boot_id', n.boot_id, 'name', n.name, 'pool', n.pool,
        'labels', n.labels, 'slots', n.slots, 'lane', n.lane, 'isolation', n.isolation,
        'version', n.version, 'hostname', n.hostname, 'status', n.status, 'reason', n.reason,
        'joined_at', n.joined_at, 'gone_at', n.gone_at,
        'running', coalesce((SELECT json_agg(json_build_object('job_id', a.job_id,
                'attempt', a.attempt, 'run_id', a.run_id, 'repository', a.repository,
                'phase', a.phase, 'assigned_at', a.assigned_at, 'started_at', a.started_at)
                ORDER BY a.assigned_at, a.job_id)
            FROM attempt a WHERE a.runner_id = n.runner_id AND a.boot_id = n.boot_id
                AND a.phase IN ('assigned', 'started', 'lost')), '[]')
    ) ORDER BY n.pool, n.name, n.runner_id), '[]'), 'as_of', {{as_of}})::text
FROM runner n

-- name: pools
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
        'name', l.name, 'labels', coalesce(p.labels, '[]'),
        'runners', coalesce(n.runners, 0), 'slots', coalesce(n.slots, 0),
        'busy', (SELECT count(*) FROM attempt a WHERE a.pool = l.name
            AND a.phase IN ('assigned', 'started', 'lost') AND a.runner_id IS NOT NULL),
        'queued', (SELECT count(*) FROM job j WHERE j.pool = l.name AND j.status = 'queued')
    ) ORDER BY l.name), '[]'), 'as_of', {{as_of}})::text
FROM (SELECT name FROM pool UNION SELECT pool FROM runner WHERE status = 'online') l
LEFT JOIN pool p ON p.name = l.name
LEFT JOIN (SELECT pool, count(*) AS runners, sum(slots) AS slots FROM runner
    WHERE status = 'online' GROUP BY pool) n ON n.pool = l.name

-- name: queue
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
        'job_id', j.job_id, 'run_id', j.run_id, 'repository', j.repository, 'name', j.name,
        'attempt', j.live_attempt, 'status', j.status, 'pool', j.pool, 'labels', j.labels,
        'queued_at', j.queued_at, 'blocked', CASE WHEN j.blocked_reason IS NOT NULL
            THEN json_build_object('reason', j.blocked_reason, 'detail', j.blocked_detail,
                'blockers', j.blockers) END
    ) ORDER BY j.queued_at, j.job_id), '[]'), 'as_of', {{as_of}})::text
FROM (SELECT * FROM job WHERE status IN ('queued', 'assigned')
      ORDER BY queued_at, job_id LIMIT %(limit)s) j

-- name: attempt_log
SELECT json_build_object('job_id', a.job_id, 'attempt', a.attempt, 'run_id', a.run_id,
    'phase', a.phase, 'conclusion', a.conclusion, 'lines', a.log_lines,
    'sha256', a.log_sha256, 'complete', a.log_complete, 'detail', a.log_detail,
    'archived', a.log_archived_offset IS NOT NULL, 'finished_at', a.finished_at,
    'segments', coalesce((SELECT json_agg(json_build_object('first_line', g.first_line,
            'lines', g.lines, 'key', g.uri, 'size_bytes', g.size_bytes) ORDER BY g.first_line)
        FROM log_segment g WHERE g.job_id = a.job_id AND g.attempt = a.attempt), '[]'))::text
FROM attempt a WHERE a.job_id = %(job_id)s AND a.attempt = %(attempt)s

-- name: archived
SELECT coalesce(json_agg(json_build_array(a.job_id, a.attempt)), '[]')::text FROM attempt a
WHERE a.log_archived_offset IS NOT NULL AND (a.job_id, a.attempt) IN (
    SELECT * FROM unnest(%(jobs)s::text[], %(attempts)s::bigint[]))

-- name: positions
SELECT coalesce(json_agg(json_build_object('topic', topic, 'partition', partition,
    'next_offset', next_offset)), '[]')::text FROM position

-- name: counts
SELECT json_build_object(
    'open', (SELECT count(*) FROM run WHERE status <> 'completed'),
    'queued', (SELECT count(*) FROM job WHERE status = 'queued'),
    'running', (SELECT count(*) FROM attempt
        WHERE phase IN ('assigned', 'started', 'lost') AND runner_id IS NOT NULL),
    'slots', (SELECT coalesce(sum(slots), 0) FROM runner WHERE status = 'online'),
    'runners', (SELECT count(*) FROM runner WHERE status = 'online'))::text
