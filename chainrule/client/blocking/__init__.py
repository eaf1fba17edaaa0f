"""The blocking client: generated from the one for asyncio but for `calls` and `job`, where both differ."""
