"""Many volumes: what each run leaves of itself, their summary, and tasks on a cluster."""
