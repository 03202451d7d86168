"""What the commands do once their options are checked. Only torch is imported inside functions here."""
