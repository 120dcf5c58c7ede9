"""The questions: each is asked of a `Data`, adds up integers where the rows lie, and gives rows of numbers here."""
