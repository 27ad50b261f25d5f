"""What gw knows of payloads."""
