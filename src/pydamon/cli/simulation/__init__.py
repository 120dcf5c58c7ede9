"""What ``simulate`` and ``calibrate`` understand and show."""
