"""The models as Triton runs them: one file a task, each a python-backend model."""
