-- name: may_change_models()
-- Whether the role may store a model, and the transaction may write: asked before a training, which takes minutes.
SELECT pg_catalog.has_table_privilege('tiny_dancer.models'::pg_catalog.regclass, 'INSERT') AS may,
       pg_catalog.current_setting('transaction_read_only') AS read_only;

-- name: go_on()
-- Nothing, but the server looks whether the statement was cancelled while it is at it.
SELECT true AS going;
