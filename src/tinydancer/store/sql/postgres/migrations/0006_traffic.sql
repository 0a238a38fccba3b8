-- The traffic by the hour: what analytics add up, so that ten million outcomes are read as some ten thousand rows.

-- What an outcome counts for, with what its decision knew, where it has one; once per grouping it counts in. An outcome
-- whose request named neither a semantic route nor a task is plain: one row, which every grouping reads. Any other has
-- a row for its objective, one for its route and one for its task. Tokens stand here only where the cost is known, too:
-- they say what the same requests would have cost elsewhere. The estimates of a decision for one agent are not taken
-- for another one that answered. Latencies fall into buckets three of those of tinydancer.learn wide, hence within 3%.
-- The bounds keep squares within what double precision holds: one number that did not fit would stop all rolling up.
CREATE VIEW tiny_dancer.traffic_facts WITH (security_invoker = true) AS
SELECT f.tenant, f.outcome_id, f.occurred_at,
       pg_catalog.date_bin('1 hour', f.occurred_at, 'epoch'::timestamptz) AS hour, f.agent_id, k.kind, k.value,
       f.success, f.quality,
       CASE WHEN f.quality > 1e-100 THEN f.quality ^ 2 ELSE 0 END AS quality_square, f.expected_quality, f.latency_ms,
       f.latency_bucket, f.cost_usd, CASE WHEN f.cost_usd > 1e-100 THEN f.cost_usd ^ 2 ELSE 0 END AS cost_square,
       f.estimated_usd, f.input_tokens,
       CASE WHEN f.input_tokens > 1e-100 THEN f.input_tokens ^ 2 ELSE 0 END AS input_square, f.output_tokens,
       CASE WHEN f.output_tokens > 0 THEN f.output_tokens ^ 2 ELSE 0 END AS output_square
FROM (SELECT o.tenant, o.id AS outcome_id, o.occurred_at, o.agent_id, o.success, o.quality,
             CASE WHEN d.agent_id = o.agent_id THEN d.expected_quality END AS expected_quality, o.latency_ms,
             (o.latency_bucket + 2) / 3 AS latency_bucket,
             CASE WHEN o.cost_usd > 1e100 THEN 1e100 ELSE o.cost_usd END AS cost_usd,
             CASE WHEN o.cost_usd IS NULL AND d.agent_id = o.agent_id THEN d.estimated_cost_usd END AS estimated_usd,
             CASE WHEN o.cost_usd IS NOT NULL OR (d.agent_id = o.agent_id AND d.estimated_cost_usd IS NOT NULL)
                  THEN CASE WHEN o.input_tokens IS NOT NULL THEN o.input_tokens
                            WHEN d.input_tokens > 1e100 THEN 1e100
                            ELSE d.input_tokens END
             END AS input_tokens,
             CASE WHEN o.cost_usd IS NOT NULL OR (d.agent_id = o.agent_id AND d.estimated_cost_usd IS NOT NULL)
                  THEN o.output_tokens::double precision
             END AS output_tokens,
             coalesce(d.objective, '') AS objective, d.context, d.context ?| '{route_name,task}' AS has_context
      FROM tiny_dancer.outcomes AS o
      LEFT JOIN LATERAL (
          SELECT i.agent_id, i.objective, i.expected_quality, i.estimated_cost_usd, i.input_tokens, i.context
          FROM tiny_dancer.decisions AS i
          WHERE i.tenant = o.tenant AND i.decision_id = o.decision_id
          OFFSET 0
      ) AS d ON true) AS f
CROSS JOIN LATERAL (
    VALUES (CASE WHEN f.has_context THEN 'objective' ELSE 'plain' END, f.objective),
           (CASE WHEN f.has_context THEN 'route' END, coalesce(f.context ->> 'route_name', '')),
           (CASE WHEN f.has_context THEN 'task' END, coalesce(f.context ->> 'task', ''))
) AS k (kind, value)
WHERE k.kind IS NOT NULL;

-- The sums of those, per hour of UTC. squares are sums of squares, from which the spread is known. A histogram is a
-- pair of arrays: the buckets in order, and how many latencies lie in each.
CREATE TABLE tiny_dancer.traffic (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    kind text NOT NULL,
    hour timestamptz NOT NULL,
    agent_id bigint NOT NULL,
    value text COLLATE "C" NOT NULL,
    requests bigint NOT NULL,
    successes bigint NOT NULL,
    quality_count bigint NOT NULL,
    quality_sum double precision NOT NULL,
    quality_squares double precision NOT NULL,
    expected_count bigint NOT NULL,
    expected_sum double precision NOT NULL,
    latency_count bigint NOT NULL,
    latency_sum_ms double precision NOT NULL,
    cost_count bigint NOT NULL,
    cost_sum_usd double precision NOT NULL,
    cost_squares double precision NOT NULL,
    estimated_count bigint NOT NULL,
    estimated_sum_usd double precision NOT NULL,
    input_count bigint NOT NULL,
    input_sum double precision NOT NULL,
    input_squares double precision NOT NULL,
    output_count bigint NOT NULL,
    output_sum double precision NOT NULL,
    output_squares double precision NOT NULL,
    latency_buckets integer[] NOT NULL,
    latency_numbers bigint[] NOT NULL,
    PRIMARY KEY (tenant, kind, hour, agent_id, value),
    CONSTRAINT traffic_kind_check CHECK (kind IN ('plain', 'objective', 'route', 'task'))
) WITH (fillfactor = 50);

ALTER TABLE tiny_dancer.traffic ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.traffic
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

-- How many of the outcomes that are rolled up are in it. Fewer than all of them were before this table was: analytics
-- say so, and rebuilding the traffic adds them.
ALTER TABLE tiny_dancer.rolled_up ADD COLUMN in_traffic bigint NOT NULL DEFAULT 0;

-- The outcomes of part of an hour, where a time range begins. They are appended nearly in order of time, which is all
-- that such an index needs, and it costs an insertion next to nothing.
CREATE INDEX outcomes_by_time ON tiny_dancer.outcomes USING brin (occurred_at)
    WITH (pages_per_range = 32, autosummarize = on);
