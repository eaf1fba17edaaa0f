"""Who may connect and call: addresses, TLS, tokens, roles, limits of connections."""
