"""A file a command, or a family of them: each adds its flags to a program and runs what they ask for."""
