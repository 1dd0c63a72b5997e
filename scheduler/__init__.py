"""The durable queue of batch and fine-tuning jobs."""
