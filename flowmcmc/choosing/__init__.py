"""Policy: which flow a run takes and how long it warms up. Reading order: candidates, warmup, fitted, price."""
