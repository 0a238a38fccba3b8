-- Whose request a decision was for: an object with key, tags, task and route_name, those that were said. Nobody constrains
-- it: the server would parse the constraint anew at every decision that is recorded.
ALTER TABLE tiny_dancer.decisions ADD COLUMN context jsonb;
