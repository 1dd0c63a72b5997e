"""The public gRPC server: who is calling, what they may do, which replica answers, what it cost."""
