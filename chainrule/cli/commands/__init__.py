"""The commands of `chainrule`, each a plain function that `chainrule.cli.app` calls. They import gRPC, so cli is
lazy."""
