"""What runs beside a GPU: the serving agent and the Triton runtimes."""
