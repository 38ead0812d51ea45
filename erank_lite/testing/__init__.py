"""What tests and benchmarks share: a guide that counts tokens, and small models."""
