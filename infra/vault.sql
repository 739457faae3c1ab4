-- The vault: what is not derived from the log and can't be. Values are sealed (infra/vault.py);
-- the database, its backups and its administrators never see them in clear.
CREATE SCHEMA IF NOT EXISTS vault;

-- One row a registered repository: what ingest must know to answer for it. `webhook_secret` and
-- `token` are sealed. `added_by` is the idempotency key of the request that added it.
CREATE TABLE IF NOT EXISTS vault.repositories (
    repository      text PRIMARY KEY,
    provider        text NOT NULL,
    clone_url       text NOT NULL,
    default_branch  text NOT NULL,
    webhook_secret  bytea NOT NULL,
    token           bytea,
    added_by        text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- Secrets of workflows. `repository` is '' for those of the whole installation; `environment`, in
-- lower case, is '' for those of all jobs of a repository.
CREATE TABLE IF NOT EXISTS vault.secrets (
    repository  text NOT NULL,
    name        text NOT NULL,
    value       bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (repository, name)
);
ALTER TABLE vault.secrets ADD COLUMN IF NOT EXISTS environment text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX IF NOT EXISTS secrets_by_scope ON vault.secrets (repository, environment, name);
ALTER TABLE vault.secrets DROP CONSTRAINT IF EXISTS secrets_pkey;

-- Counts changes of webhook secrets, so that every ingest process sees cheaply that it must reload.
CREATE TABLE IF NOT EXISTS vault.version (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number    bigint NOT NULL
);
INSERT INTO vault.version (number) VALUES (0) ON CONFLICT DO NOTHING;
