-- Ranges of what is written with every decision and every outcome, as domains: the server parses a table's constraints
-- anew at each INSERT, which took longer than writing the row, and a domain's once in a session. The constraints keep
-- their names, so that an error still says which value was refused. How long a tenant's name may be is for agents and
-- their like to say: both tables take the tenant together with an agent.
CREATE DOMAIN tiny_dancer.decision_id AS text COLLATE "C"
    CONSTRAINT decisions_decision_id_check CHECK (char_length(value) BETWEEN 1 AND 200);
CREATE DOMAIN tiny_dancer.decision_objective AS text
    CONSTRAINT decisions_objective_check CHECK (value <> '');
CREATE DOMAIN tiny_dancer.decision_expected_quality AS double precision
    CONSTRAINT decisions_expected_quality_check CHECK (value BETWEEN 0 AND 1.0001);
CREATE DOMAIN tiny_dancer.decision_confidence AS double precision
    CONSTRAINT decisions_confidence_check CHECK (value BETWEEN 0 AND 1.0001);
CREATE DOMAIN tiny_dancer.decision_uncertainty AS double precision
    CONSTRAINT decisions_uncertainty_check CHECK (value BETWEEN 0 AND 1.0001);
CREATE DOMAIN tiny_dancer.decision_estimated_cost_usd AS double precision
    CONSTRAINT decisions_estimated_cost_usd_check CHECK (value BETWEEN 0 AND 1e300);
CREATE DOMAIN tiny_dancer.decision_estimated_latency_ms AS double precision
    CONSTRAINT decisions_estimated_latency_ms_check CHECK (value BETWEEN 0 AND 1e300);
CREATE DOMAIN tiny_dancer.decision_similarity_score AS double precision
    CONSTRAINT decisions_similarity_score_check CHECK (value BETWEEN -1.0001 AND 1.0001);
CREATE DOMAIN tiny_dancer.decision_input_tokens AS double precision
    CONSTRAINT decisions_input_tokens_check CHECK (value BETWEEN 0 AND 1e300);
CREATE DOMAIN tiny_dancer.decision_constraints AS jsonb
    CONSTRAINT decisions_constraints_check CHECK (jsonb_typeof(value) = 'object');

CREATE DOMAIN tiny_dancer.outcome_quality AS double precision
    CONSTRAINT outcomes_quality_check CHECK (value BETWEEN 0 AND 1);
CREATE DOMAIN tiny_dancer.outcome_latency_ms AS double precision
    CONSTRAINT outcomes_latency_ms_check CHECK (value BETWEEN 0 AND 1e300);
CREATE DOMAIN tiny_dancer.outcome_cost_usd AS double precision
    CONSTRAINT outcomes_cost_usd_check CHECK (value BETWEEN 0 AND 1e300);
CREATE DOMAIN tiny_dancer.outcome_input_tokens AS bigint
    CONSTRAINT outcomes_input_tokens_check CHECK (value >= 0);
CREATE DOMAIN tiny_dancer.outcome_output_tokens AS bigint
    CONSTRAINT outcomes_output_tokens_check CHECK (value >= 0);

-- A column that a view shows keeps its type, so the view is made anew, word for word.
DO $$
DECLARE
    facts text := pg_catalog.pg_get_viewdef('tiny_dancer.traffic_facts'::pg_catalog.regclass);
BEGIN
    DROP VIEW tiny_dancer.traffic_facts;

    ALTER TABLE tiny_dancer.decisions
        DROP CONSTRAINT decisions_tenant_check,
        DROP CONSTRAINT decisions_decision_id_check,
        DROP CONSTRAINT decisions_objective_check,
        DROP CONSTRAINT decisions_expected_quality_check,
        DROP CONSTRAINT decisions_confidence_check,
        DROP CONSTRAINT decisions_uncertainty_check,
        DROP CONSTRAINT decisions_estimated_cost_usd_check,
        DROP CONSTRAINT decisions_estimated_latency_ms_check,
        DROP CONSTRAINT decisions_similarity_score_check,
        DROP CONSTRAINT decisions_input_tokens_check,
        DROP CONSTRAINT decisions_constraints_check,
        ALTER COLUMN decision_id TYPE tiny_dancer.decision_id,
        ALTER COLUMN objective TYPE tiny_dancer.decision_objective,
        ALTER COLUMN expected_quality TYPE tiny_dancer.decision_expected_quality,
        ALTER COLUMN confidence TYPE tiny_dancer.decision_confidence,
        ALTER COLUMN uncertainty TYPE tiny_dancer.decision_uncertainty,
        ALTER COLUMN estimated_cost_usd TYPE tiny_dancer.decision_estimated_cost_usd,
        ALTER COLUMN estimated_latency_ms TYPE tiny_dancer.decision_estimated_latency_ms,
        ALTER COLUMN similarity_score TYPE tiny_dancer.decision_similarity_score,
        ALTER COLUMN input_tokens TYPE tiny_dancer.decision_input_tokens,
        ALTER COLUMN constraints TYPE tiny_dancer.decision_constraints;

    ALTER TABLE tiny_dancer.outcomes
        DROP CONSTRAINT outcomes_in_range,
        ALTER COLUMN quality TYPE tiny_dancer.outcome_quality,
        ALTER COLUMN latency_ms TYPE tiny_dancer.outcome_latency_ms,
        ALTER COLUMN cost_usd TYPE tiny_dancer.outcome_cost_usd,
        ALTER COLUMN input_tokens TYPE tiny_dancer.outcome_input_tokens,
        ALTER COLUMN output_tokens TYPE tiny_dancer.outcome_output_tokens,
        ADD CONSTRAINT outcomes_bins_check CHECK (
            (quality_bin IS NULL) = (quality IS NULL) AND (latency_bucket IS NULL) = (latency_ms IS NULL)
        );

    EXECUTE 'CREATE VIEW tiny_dancer.traffic_facts WITH (security_invoker = true) AS ' || facts;
END;
$$;
