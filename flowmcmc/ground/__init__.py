"""What everything stands on: arguments, checks, densities to start from, devices, compiling, pytrees."""
