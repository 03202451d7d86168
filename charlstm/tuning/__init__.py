"""A search for the settings that suit a corpus, told as a series of events."""
