"""Between our messages and a model's tensors, one file a family of tasks."""
