"""Tables, figures and pages, from csv files alone; imports no torch."""
