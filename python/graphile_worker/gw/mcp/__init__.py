"""gw mcp: the queue for assistants."""
