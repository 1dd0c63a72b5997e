"""The engine behind text generation: many sequences, one step for all of them at a time."""
