"""Generated gRPC stubs of protos/chainrule/v1; see tools/generate_stubs.py."""
