"""Policy: which flow a run takes, how long it warms up, and every number that this depends on."""
