"""What every floor may use: errors, settings, the console, files, the machine, ranks, runs."""
