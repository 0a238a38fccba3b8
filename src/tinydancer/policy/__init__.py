"""Pure rules: which agents may serve a request, which of them is best, and why. State in, state out; no I/O."""
