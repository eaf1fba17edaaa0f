"""From what people write (TOML, dictionaries, expressions, sweeps) to a JobSpec."""
