"""Tables, pictures and pages, derived from a study on disk; read without torch."""
