"""A search for the settings that suit a corpus, as a series of events."""
