"""The conformance kit: whether a worker, in whatever language, keeps the rules of the protocol."""
