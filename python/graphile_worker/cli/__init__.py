"""What the command lines gw and gw-install share."""
