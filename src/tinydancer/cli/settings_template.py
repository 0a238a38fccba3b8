"""The settings file that ``tinydancer init`` writes: every setting with its default, its unit and what it does.

A test holds it to the code: it parses, it names every setting, and its values are the defaults.
"""

from __future__ import annotations

TEMPLATE = """\
# Settings of Tiny Dancer. Every value below is the default: change what you need and delete the rest.
# Read from ./tinydancer.yaml, or from the file that --config or TINYDANCER_CONFIG names.
# No secret belongs in here: where a key is needed, the name of an environment variable stands.

# Path of the SQLite file, made when the first agent is registered. A relative path starts from the directory in which
# the program runs. --store and TINYDANCER_STORE go before it.
store: tinydancer.db

# Whose agents and decisions these are; tenants in one store do not see each other. 1 to 200 characters.
tenant: default

# Whether decisions are recorded, which feedback refers to: true, false, or a share in [0, 1].
record_decisions: true

# Whether the text of a request is stored with its decision.
record_requests: false

# Whether a request's vector and facts of its text (0.8 KB) are stored with its decision although no model is in use, so
# that one can be trained on them later. With a model in use they always are: it learns from them.
record_features: false

# Longest request accepted, in characters (400,000 are about 100,000 tokens).
max_request_chars: 400000

# How old, in seconds, the statistics of other processes' outcomes may be when a decision is made. Changes of the agents
# and the outcomes of the same process count at once.
stats_refresh_s: 0.25

# How many decisions, and how many embeddings, of the latest texts a process keeps to reuse them for the same text. A
# decision is reused only while agents, model and statistics are unchanged. 0 keeps none.
decision_cache_entries: 1000

# How texts become vectors.
embedder:
  # static: shipped, offline, fast. minilm: the sentence transformer itself (needs the extra "minilm").
  # openai: any service that answers /v1/embeddings (needs the extra "http"). none: callers bring their own vectors.
  kind: static

  # Name and number of dimensions of the vector space; null means all-MiniLM-L6-v2 with 384, the space that static and
  # minilm share. openai needs its dim, and takes the name of its model if no space is named. Vectors of different
  # spaces cannot be compared, so a store keeps to the space it was made with.
  space: null
  dim: null

  # minilm: a directory that holds the model; null takes the one of the installed package.
  model_path: null

  # openai: address of the service (as in http://127.0.0.1:8000/v1) and name of the model; it needs both, and dim.
  base_url: null
  model: null

  # openai: the environment variable that holds the key, and how long to wait for an answer, in seconds.
  api_key_env: OPENAI_API_KEY
  timeout_s: 30.0

# How decisions are made.
decisions:
  # The objectives cost, latency and quality_per_dollar choose among agents whose expected quality is at least this
  # share of the best one's, in [0, 1]; 0 switches that off and lets the cheapest win whatever its quality.
  good_enough: 0.7

  # The quality that an answer must reach to count as good, in [0, 1], where a request names no min_quality. Confidence
  # is the probability of reaching it.
  quality_bar: 0.5

  # Share by which the expected quality of the worst-matching agent is lowered, in [0, 1].
  match_discount: 0.15

  # Difference of cosine similarities from which that discount applies in full; smaller ones, which are mostly noise of
  # the embedding, lower the quality in proportion.
  match_spread: 0.2

  # Weights of the objective balanced; each at least 0, and not all of them 0.
  weight_cost: 0.25
  weight_latency: 0.25
  weight_quality: 0.25
  weight_match: 0.25

  # Tokens of an answer, for agents that state nothing and of which nothing was observed.
  default_output_tokens: 300.0

  # How many other agents a decision names.
  max_alternatives: 3
"""
