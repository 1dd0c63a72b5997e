"""Who gets in and who does not, each through a real gRPC server with the real pipeline."""
