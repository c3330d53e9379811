-- SPDX-License-Identifier: Apache-2.0
-- PostgreSQL 12 and later: records of a fleet, each once however often it comes.  The tests run it.
CREATE TABLE oom_record (
    type text NOT NULL,
    id text NOT NULL,
    time timestamptz NOT NULL,
    host text,
    record jsonb NOT NULL,
    PRIMARY KEY (type, id)
);
CREATE INDEX ON oom_record USING brin (time);

-- What a consumer writes into: one line of JSON a row.
CREATE UNLOGGED TABLE oom_line (line jsonb NOT NULL);
CREATE FUNCTION oom_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO oom_record
    SELECT NEW.line ->> 'type',
           coalesce(NEW.line ->> 'id', concat_ws('/', NEW.line #>> '{host,boot_id}', NEW.line ->> 'time', NEW.line ->> 'seq')),
           (NEW.line ->> 'time')::timestamptz,
           NEW.line #>> '{host,name}',
           NEW.line
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER oom_keep BEFORE INSERT ON oom_line FOR EACH ROW EXECUTE FUNCTION oom_keep();

-- A pod's deployment: its name without what the ReplicaSet and the pod add (StatefulSets: the number).
CREATE VIEW oom_kill AS
SELECT time, host, id,
       record #>> '{incident,scope}' AS scope,
       record #>> '{kubernetes,namespace}' AS namespace,
       regexp_replace(record #>> '{kubernetes,pod_name}',
                      '(-[bcdf-hj-np-tv-xz2456789]{6,10})?-([bcdf-hj-np-tv-xz2456789]{5}|[0-9]+)$', '') AS deployment,
       record #>> '{limit,level}' AS limit_level,
       (record #>> '{limit,limit_bytes}')::numeric AS limit_bytes,
       (record #>> '{victim,rss_bytes}')::numeric AS rss_bytes,
       record #>> '{victim,comm}' AS comm
FROM oom_record WHERE type = 'oom_kill';
