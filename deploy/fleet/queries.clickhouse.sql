-- SPDX-License-Identifier: Apache-2.0
-- Which deployment loses most processes, at which limit?
SELECT namespace, deployment, limit_level AS level, intDiv(limit_bytes, 1048576) AS limit_mib, count() AS kills,
       uniqExact(host) AS hosts, intDiv(quantileExact(0.5)(rss_bytes), 1048576) AS median_rss_mib
FROM oom_kill FINAL WHERE deployment != ''
GROUP BY namespace, deployment, level, limit_mib ORDER BY kills DESC, deployment LIMIT 5;
-- Is it one node, or all at once?
SELECT deployment, count() AS kills, uniqExact(host) AS hosts,
       round(dateDiff('millisecond', quantileExact(0.05)(time), quantileExact(0.95)(time)) / 1000) AS most_within_s
FROM oom_kill FINAL WHERE deployment != '' GROUP BY deployment ORDER BY kills DESC, deployment LIMIT 3;
-- Which nodes ran out of memory themselves?
SELECT host, count() AS kills FROM oom_kill FINAL WHERE scope = 'host' GROUP BY host ORDER BY kills DESC, host LIMIT 3;
