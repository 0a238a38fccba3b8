-- The outcomes of a time range; analytics add them up as they are.
CREATE INDEX outcomes_by_time ON outcomes (tenant, occurred_at);
