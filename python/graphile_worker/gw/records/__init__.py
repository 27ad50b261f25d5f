"""What gw shows and keeps of jobs that ended or failed for good."""
