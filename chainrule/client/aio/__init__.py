"""The client for asyncio; from its files the blocking client is generated (tools/generate_blocking_client.py)."""
