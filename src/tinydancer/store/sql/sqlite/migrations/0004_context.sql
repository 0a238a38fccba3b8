-- Whose request a decision was for: a JSON object with key, tags, task and route_name, those that were said.
ALTER TABLE decisions ADD COLUMN context TEXT;
