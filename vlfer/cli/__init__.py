"""The command line: one module a command. Nothing heavy is imported at the top of these modules."""
