"""The gRPC services, thin: decode, one call on a plain object, encode."""
