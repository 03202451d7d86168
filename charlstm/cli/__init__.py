"""The command line. `app` has the table of commands, `commands` their options, `actions` what they do."""
