-- SPDX-License-Identifier: Apache-2.0
-- ClickHouse: records of a fleet, each once however often it comes (on merge, or with FINAL).
-- Run by hand with chdb (ClickHouse 26.9 in a Python package) on the simulation's records; not in CI.
-- With Kafka, ENGINE = Null becomes
--   ENGINE = Kafka SETTINGS kafka_broker_list = 'kafka:9092', kafka_topic_list = 'oom-kills',
--            kafka_group_name = 'clickhouse', kafka_format = 'LineAsString', kafka_num_consumers = 4
CREATE TABLE oom_line (line String) ENGINE = Null;
CREATE TABLE oom_kill (
    time DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    id String,
    host LowCardinality(String),
    scope LowCardinality(String),
    namespace LowCardinality(String),
    deployment LowCardinality(String),
    pod String,
    image LowCardinality(String),
    limit_level LowCardinality(String),
    limit_bytes UInt64 CODEC(ZSTD),
    rss_bytes UInt64 CODEC(ZSTD),
    comm LowCardinality(String),
    record String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (namespace, deployment, time, id)
TTL toDateTime(time) + INTERVAL 1 YEAR;
CREATE MATERIALIZED VIEW oom_kill_from_line TO oom_kill AS
SELECT parseDateTime64BestEffort(JSONExtractString(line, 'time'), 9, 'UTC') AS time,
       JSONExtractString(line, 'id') AS id,
       JSONExtractString(line, 'host', 'name') AS host,
       JSONExtractString(line, 'incident', 'scope') AS scope,
       JSONExtractString(line, 'kubernetes', 'namespace') AS namespace,
       JSONExtractString(line, 'kubernetes', 'pod_name') AS pod,
       replaceRegexpOne(pod, '(-[bcdf-hj-np-tv-xz2456789]{6,10})?-([bcdf-hj-np-tv-xz2456789]{5}|[0-9]+)$', '') AS deployment,
       JSONExtractString(line, 'container', 'image') AS image,
       JSONExtractString(line, 'limit', 'level') AS limit_level,
       JSONExtractUInt(line, 'limit', 'limit_bytes') AS limit_bytes,
       JSONExtractUInt(line, 'victim', 'rss_bytes') AS rss_bytes,
       JSONExtractString(line, 'victim', 'comm') AS comm,
       line AS record
FROM oom_line WHERE JSONExtractString(line, 'type') = 'oom_kill';
