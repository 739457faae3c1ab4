"""From a delivery and a commit to plans: the only place that reads workflow files."""
