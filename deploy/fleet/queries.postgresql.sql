-- SPDX-License-Identifier: Apache-2.0
-- Which deployment loses most processes, at which limit?
SELECT namespace, deployment, limit_level AS level, (limit_bytes / 1048576)::int AS limit_mib, count(*) AS kills,
       count(DISTINCT host) AS hosts,
       (percentile_disc(0.5) WITHIN GROUP (ORDER BY rss_bytes) / 1048576)::int AS median_rss_mib
FROM oom_kill WHERE deployment IS NOT NULL
GROUP BY 1, 2, 3, 4 ORDER BY kills DESC, 2 LIMIT 5;
-- Is it one node, or all at once?
SELECT deployment, count(*) AS kills, count(DISTINCT host) AS hosts,
       round(extract(epoch FROM percentile_disc(0.95) WITHIN GROUP (ORDER BY time)
                              - percentile_disc(0.05) WITHIN GROUP (ORDER BY time))) AS most_within_s
FROM oom_kill WHERE deployment IS NOT NULL GROUP BY 1 ORDER BY kills DESC, 1 LIMIT 3;
-- Which nodes ran out of memory themselves?
SELECT host, count(*) AS kills FROM oom_kill WHERE scope = 'host' GROUP BY 1 ORDER BY kills DESC, 1 LIMIT 3;
