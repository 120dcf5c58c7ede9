"""What ``simulate`` understands and shows."""
